"""Masks of data files: three forms of one mask, and what is wrong with others."""

import json

import numpy as np
import pytest
from PIL import Image

from chiasm import parts
from chiasm.conversation import as_messages
from chiasm.data.mask_records import unpacked
from chiasm.errors import DataError

# Columns 1 and 2, rows 1 to 3, of 6 columns and 5 rows.
TRUE = np.zeros((5, 6), dtype=bool)
TRUE[1:4, 1:3] = True
RUNS = [6, 3, 2, 3, 16]


@pytest.fixture
def chat(tmp_path):
    Image.new("RGB", (6, 5), "red").save(tmp_path / "a.png")
    Image.fromarray(TRUE).save(tmp_path / "mask.png")

    def read(masks, **turns):
        record = {
            "image": "a.png",
            "masks": masks,
            "messages": [{"role": "user", "content": "<image>Mark it."}],
        }
        (tmp_path / "data.jsonl").write_text(json.dumps({**record, **turns}))
        return parts.build("data", {"type": "chat", "path": str(tmp_path / "data.jsonl")})[0][0]

    return read


def test_polygons_run_lengths_and_images_say_the_same(chat):
    forms = (
        [[1, 1, 2, 1, 2, 3, 1, 3]],
        {"size": [5, 6], "counts": RUNS},
        {"size": [5, 6], "counts": "6320>"},
        "mask.png",
    )
    sample = chat(list(forms))
    masks = sample.masks.open()
    assert sample.masks.count == len(masks) == 4
    for mask in masks:
        assert (mask == TRUE).all()
    assert [message.role for message in sample.messages] == ["user"]


def test_packed_lengths_are_differences_from_the_fourth_on():
    assert unpacked("6320>", "here") == RUNS


def test_no_mask_is_an_answer_too(chat):
    assert chat([]).masks.open().shape == (0, 5, 6)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ("mask.png", "masks are a list"),
        ([[1, 2, 3]], "list of polygons"),
        ([[[1, 2, 3, 4]]], "list of polygons"),
        ([[[1, 1, 2, 1, float("nan"), 3]]], "list of polygons"),
        ([[[1, 1, 2, 1, 2, 3], [60, 10, 90, 10, 90, 40]]], "no part of which lies in its image of 6 x 5"),
        ([{"size": [5, 6], "counts": [30, 1]}], "do not add up"),
        ([{"size": [6, 5], "counts": RUNS}], "6 x 5 pixels, but its image 5 x 6"),
        ([{"size": [5, 6], "counts": "6~"}], "'~' in its run lengths"),
        ([{"size": [5, 6], "counts": "P"}], "end within a number"),
    ],
)
def test_what_is_no_mask_is_a_sentence(chat, masks, words):
    with pytest.raises(DataError, match=words):
        chat(masks)


def test_of_a_polygon_what_lies_in_the_image_is_the_mask(chat):
    (mask,) = chat([[[-9, -9, 2, -9, 2, 2, -9, 2]]]).masks.open()
    assert mask[:3, :3].all()
    assert mask.sum() == 9


@pytest.mark.parametrize(
    ("mode", "colour", "words"),
    [("L", 1, "nowhere lighter than 1"), ("L", 127, "nowhere lighter than 127"), ("RGB", "red", "in colour")],
)
def test_a_mask_that_is_not_black_and_white_is_a_sentence(chat, tmp_path, mode, colour, words):
    image = Image.new(mode, (6, 5))
    image.paste(colour, (1, 1, 3, 3))
    image.save(tmp_path / "labels.png")
    with pytest.raises(DataError, match=f"sample 1 of data.jsonl, mask 2 .*{words}"):
        chat(["mask.png", "labels.png"]).masks.open()


def saved(tmp_path, image):
    image.save(tmp_path / "mask.png")
    return ["mask.png"]


def test_transparency_is_no_mask_unless_there_is_none(chat, tmp_path):
    """On white, as other images are seen, what is transparent would be of the mask."""
    seen = Image.fromarray(TRUE).convert("RGBA")
    assert (chat(saved(tmp_path, seen)).masks.open()[0] == TRUE).all()
    seen.putpixel((0, 0), (0, 0, 0, 0))
    with pytest.raises(DataError, match="mask 1 is an image with transparent pixels"):
        chat(saved(tmp_path, seen)).masks.open()


def test_a_photograph_is_no_mask_however_little_colour_it_has(chat, tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    levels = np.linspace(0, 255, 64, dtype=np.uint8)
    grey = np.broadcast_to(levels, (48, 64))
    tinted = np.stack([grey, grey, np.minimum(grey, 200) + np.arange(48, dtype=np.uint8)[:, None]], -1)
    soft = np.clip((np.arange(64) - 24) * 16.0, 0, 255).astype(np.uint8)  # an edge of 16 pixels
    for pixels in (tinted, np.broadcast_to(64 + levels // 2, (48, 64)).copy()):
        with pytest.raises(DataError, match=r"mask 1 is an image of .* colours, .* neither black nor white"):
            chat(saved(tmp_path, Image.fromarray(pixels))).masks.open()
    (mask,) = chat(saved(tmp_path, Image.fromarray(np.broadcast_to(soft, (48, 64)).copy()))).masks.open()
    assert (mask == (soft >= 128)).all()


def test_masks_are_the_answer(chat):
    turns = [{"role": "user", "content": "<image>Mark it."}, {"role": "assistant", "content": "Here."}]
    with pytest.raises(DataError, match="has masks and an answer besides; it must end with the question"):
        chat([], messages=turns)


def test_masks_need_an_image(chat):
    with pytest.raises(DataError, match="has no image"):
        chat([], image=None, messages=[{"role": "user", "content": "Mark it."}])


def test_a_conversation_cannot_ask_for_masks_silently():
    with pytest.raises(DataError, match="unknown key 'masks'"):
        as_messages({"messages": [{"role": "user", "content": "Mark it."}], "masks": []})
