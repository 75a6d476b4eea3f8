"""Images that the model drew, sent back by a client: they are not encoded again."""

import base64
import io
import json

import pytest
import torch
from PIL import Image

from chiasm.data.files import PictureBytes
from chiasm.inference.reading import CODES, CodedImage
from chiasm.serving.drawn import NOTE, DrawnImages, png_options
from clients import data_url, opened, said


@pytest.fixture
def encoded(model, monkeypatch):
    """How many images the image tokenizer encodes."""
    counts, encode = [], model.image_tokenizer.encode

    def counted(pixels):
        counts.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(model.image_tokenizer, "encode", counted)
    return counts


def saved(image, form="png", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_an_answers_images_are_read_again_as_they_were_drawn(client, encoded):
    first = client.chat.completions.create(model="tiny", messages=said("What is this?"), max_tokens=6, seed=3)
    message = first.choices[0].message.model_dump(exclude_none=True)
    message["images"] = message["images"][:1]
    messages = [*said("What is this?"), message, *said("And now?")]
    client.chat.completions.create(model="tiny", messages=messages, max_tokens=2)
    assert encoded == []
    message["images"][0]["image_url"]["url"] = data_url("lime")  # another image in its place is encoded
    client.chat.completions.create(model="tiny", messages=messages, max_tokens=2)
    assert encoded == [1]


def test_an_edit_keeps_what_was_drawn_although_its_pixels_would_encode_to_something_else(
    client, model, encoded
):
    drawn = client.images.generate(prompt="a dog", extra_body={"seed": 9}).data[0].b64_json
    mask = Image.new("RGBA", (32, 32), "black")
    mask.paste((0, 0, 0, 0), (0, 0, 16, 16))
    options = {"prompt": "a cat", "mask": saved(mask), "extra_body": {"seed": 4}}
    edited = client.images.edit(image=base64.b64decode(drawn), **options)
    assert encoded == []
    assert opened(edited.data[0].b64_json).size == (32, 32)


@pytest.fixture
def drawn(model):
    """An image with its codes, and what notes and recognises them."""
    image = Image.new("RGB", (32, 32), (7, 0, 0))
    image.info[CODES] = torch.arange(model.image_head.space.length).view(model.image_head.space.grid)
    return DrawnImages(model), image


def codes_of(picture):
    return picture.codes.tolist() if isinstance(picture, CodedImage) else None


def test_a_file_holds_the_codes_of_its_image(drawn):
    images, image = drawn
    file = saved(images.sign(image), **png_options(image))
    assert codes_of(images.recognise(PictureBytes(file))) == image.info[CODES].tolist()
    assert codes_of(images.recognise(PictureBytes(saved(image)))) is None  # the pixels alone say nothing


def test_a_note_counts_for_its_own_pixels_and_its_own_model_alone(drawn, tiny_model):
    images, image = drawn
    images.sign(image)
    other = Image.new("RGB", (32, 32), (8, 0, 0))
    other.info[NOTE] = image.info[NOTE]
    assert codes_of(images.recognise(PictureBytes(saved(other, **png_options(other))))) is None
    with torch.no_grad():
        next(tiny_model[0].image_tokenizer.parameters()).add_(1)
    of_another = DrawnImages(tiny_model[0])
    assert codes_of(of_another.recognise(PictureBytes(saved(image, **png_options(image))))) is None


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, 2]},
        {"shape": ["a"]},
        {"shape": None},
        {"numbers": "object"},
        {"numbers": "float32"},
        {"data": "!"},
        {"data": base64.b64encode(b"\xff" * 16).decode()},
        {"data": None},
    ],
)
def test_a_note_that_somebody_has_made_up_is_of_no_account(drawn, change):
    images, image = drawn
    images.sign(image)
    image.info[NOTE] = json.dumps({**json.loads(image.info[NOTE]), **change})
    assert codes_of(images.recognise(PictureBytes(saved(image, **png_options(image))))) is None
    for note in ("[", "3", "[" * 100_000):
        image.info[NOTE] = note
        assert codes_of(images.recognise(PictureBytes(saved(image, **png_options(image))))) is None


def test_what_others_have_drawn_decides_nothing(client, encoded):
    """An image without a note is encoded, whether or not somebody has had the model draw the same pixels."""
    drawn = client.images.generate(prompt="a dog", extra_body={"seed": 9}).data[0].b64_json
    bare = base64.b64encode(saved(opened(drawn))).decode()
    for sent, count in ((drawn, []), (bare, [1])):
        url = {"url": "data:image/png;base64," + sent}
        images = [{"type": "image_url", "image_url": url}]
        messages = [*said("Draw."), {"role": "assistant", "images": images}, *said("And now?")]
        client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)
        assert encoded == count
