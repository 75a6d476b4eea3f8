"""Questions that ask for masks, answered in words or as an image: by the world and by records alike."""

import json

import numpy as np
import pytest
from PIL import Image

from chiasm import parts
from chiasm.data.mask_answers import ANSWER, union
from chiasm.errors import DataError, RecipeError

WORLD = {"type": "world", "emoji": 12, "grid": 2, "canvas": 96, "objects": [2, 3], "unanswerable": 0.3}


def samples(**options):
    world = parts.build("data", {**WORLD, "tasks": {"segment": 2}, **options})
    return [sample for index in range(20) for sample in world[index]]


@pytest.mark.parametrize("form", ["polygons", "runs", "image"])
def test_each_form_asks_the_same_and_its_answer_means_the_masks_of_a_head(form):
    overlaps, empty = [], 0
    for asked, head in zip(samples(mask_form=form), samples(), strict=True):
        question, answer = asked.messages
        assert question.content[1] == head.messages[0].content[1]
        assert asked.masks is None
        true = union(head.masks)
        content = answer.content[0]
        read = asked.truth[ANSWER].read(content if isinstance(content, str) else content.open())
        either = (read | true).sum()
        overlaps.append((read & true).sum() / either if either else 1.0)
        empty += not true.any()
        if form != "image":
            assert (content == "none") == (not true.any())
    assert empty
    assert min(overlaps) > 0.5
    assert np.mean(overlaps) > 0.8


def test_an_image_is_white_where_the_mask_is_at_any_size():
    sample = next(each for each in samples(mask_form="image", unanswerable=0.0))
    answer = sample.truth[ANSWER]
    picture = sample.messages[1].content[0]
    assert picture.size == (96, 96)
    assert (np.asarray(picture.open())[..., 1] == 255 * answer.mask).all()
    small = picture.open().resize((32, 32), Image.Resampling.BOX)
    assert (answer.read(small) != answer.mask).mean() < 0.03
    assert (
        len({each.messages[1].content[0].key for each in samples(mask_form="image", unanswerable=0.0)}) > 30
    )


def test_masks_of_records_become_answers(tmp_path):
    Image.new("RGB", (6, 5), "red").save(tmp_path / "a.png")
    record = {
        "image": "a.png",
        "masks": [[[1, 1, 2, 1, 2, 3, 1, 3]]],
        "messages": [{"role": "user", "content": "<image>Mark it."}],
    }

    def read(**more):
        (tmp_path / "data.jsonl").write_text(json.dumps(record | more))
        options = {"path": str(tmp_path / "data.jsonl"), "mask_form": "runs", "mask_side": 30}
        return parts.build("data", {"type": "chat", **options})[0][0]

    sample = read()
    assert (sample.truth[ANSWER].read(sample.messages[1].content[0]) == sample.truth[ANSWER].mask).all()
    assert sample.truth[ANSWER].mask.sum() == 6
    answer = {"role": "assistant", "content": "Here."}
    with pytest.raises(DataError, match=r"sample 1 of data\.jsonl has masks and an answer besides"):
        read(messages=[*record["messages"], answer])


def test_an_unknown_form_is_refused():
    with pytest.raises(RecipeError, match="mask_form"):
        samples(mask_form="outline")
