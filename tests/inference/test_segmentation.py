"""Masks from a question to the pixels of its image, and what evaluation makes of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from chiasm import parts
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.evaluation.subject import ModelSubject
from chiasm.evaluation.tasks import Exam
from chiasm.evaluation.tasks.masks import MaskTask, overlap
from chiasm.inference.masks import _placed, segment_all
from chiasm.model import Model
from chiasm.recipe import Evaluation, SamplingOptions
from chiasm.sequence import pack
from chiasm.views import Size
from tiny_recipe import TINY

SEEING = {slot: TINY["model"][slot] for slot in ("views", "encoder", "connector", "language")}


@pytest.fixture(scope="module")
def world():
    options = {"emoji": 8, "grid": 2, "objects": [2, 3], "canvas": 48, "unanswerable": 0.3, "scenes": 40}
    return parts.build("data", {"type": "world", **options, "tasks": {"segment": 2, "what": 1}})


@pytest.fixture(scope="module")
def model():
    spec = {
        **SEEING,
        "routing": {"type": "shared"},
        "heads.mask": {"type": "seg_token", "width": 16, "doublings": 1},
    }
    return Model(spec, texts=["Mark every dog."]).eval()


def asking(world):
    return [sample for i in range(12) for sample in world[i] if sample.masks is not None]


def test_the_world_asks_for_all_things_of_a_name_and_sometimes_for_none(world):
    counts = set()
    for sample in asking(world):
        scene, masks = sample.truth["scene"], sample.masks.open()
        named = [
            thing for thing in scene.things if thing.emoji.english in sample.messages[0].content[1].lower()
        ]
        assert masks.shape == (len(named), 48, 48)
        assert (sample.truth["type"] == "unanswerable") == (not named)
        for mask, thing in zip(masks, named, strict=True):
            left, top, right, bottom = scene.box(thing, 48)
            rows, columns = np.nonzero(mask)
            assert left <= columns.min()
            assert columns.max() < right
            assert top <= rows.min()
            assert rows.max() < bottom
        counts.add(len(named))
    assert 0 in counts
    assert len(counts) > 1


def test_masks_of_a_batch_are_those_of_each_alone(model, world):
    samples = asking(world)[:5]
    together = segment_all(model, samples)
    for sample, result in zip(samples, together, strict=True):
        image, question = sample.messages[0].content
        alone = model.segment(image, question)
        assert result.masks.shape == (1, 48, 48)
        assert (alone.masks == result.masks).mean() > 0.999
        np.testing.assert_allclose(alone.scores, result.scores, atol=1e-5)


def test_more_masks_than_a_head_can_write_are_an_error_that_names_the_sample(model, world):
    sample = next(sample for sample in asking(world) if sample.masks.count)
    count = sample.masks.count
    assert model.contract.most_masks is None  # which are one
    assert document(replace(model.contract, most_masks=count), sample).slots
    words = rf"scene .* asks for {count} masks, but this model's mask head writes {count - 1} at most"
    with pytest.raises(DataError, match=words):
        document(replace(model.contract, most_masks=count - 1), sample)


def test_an_image_to_segment_is_an_object_bytes_or_a_path(model, world, tmp_path):
    image = asking(world)[0].messages[0].content[0].open()
    image.save(tmp_path / "scene.png")
    expected = model.segment(image, "Mark every dog.").masks
    for other in (tmp_path / "scene.png", str(tmp_path / "scene.png"), (tmp_path / "scene.png").read_bytes()):
        np.testing.assert_array_equal(model.segment(other, "Mark every dog.").masks, expected)
    with pytest.raises(DataError, match=r"no picture at .*none\.png"):
        model.segment(tmp_path / "none.png", "Mark every dog.")
    with pytest.raises(DataError, match="it must be text"):
        model.segment(image, " ")


def test_a_mask_position_reads_the_question_and_not_the_true_masks(model, world):
    sample = asking(world)[0]
    made = document(model.contract, sample)
    plain = document(model.contract, Sample("x", sample.messages), prompt=True)
    assert made.ids[: len(plain)] == plain.ids
    assert len(made) == len(plain) + 1
    assert made.slots[-1].question == len(plain) - plain.slots[0].start - plain.slots[0].length
    batch = PictureReader(model.contract).attach(*pack([[made]]))
    assert batch.written.mask.targets[0].shape[1:] == (32, 32)


def test_what_cannot_be_marked_is_a_sentence(model, world):
    sample = asking(world)[0]
    wordy = Sample("sample 3", (Message("user", ("Mark it.",)),), masks=sample.masks)
    with pytest.raises(DataError, match="sample 3 asks for masks, but reads no image"):
        document(model.contract, wordy)
    blind = Model({**SEEING, "routing": {"type": "shared"}}, texts=["a"])
    with pytest.raises(DataError, match="has no mask head"):
        document(blind.contract, sample)
    with pytest.raises(ChiasmError, match="writes no masks"):
        segment_all(blind, [sample])


def test_masks_lie_where_their_image_does_in_the_view():
    size = Size(20, 40)
    (view,) = parts.build("views", {"type": "whole", "size": 32}).split(size)
    logits = torch.full((1, 16, 16), -1.0)
    logits[0, 8:, :] = 1.0  # the lower half of the square
    marked = _placed(logits, view, size)[0] > 0
    assert marked.shape == (20, 40)
    assert marked[10:].all()
    assert not marked[:10].any()
    (crop,) = parts.build("views", {"type": "whole", "size": 32, "fit": "crop"}).split(size)
    inside = _placed(torch.ones(1, 16, 16), crop, size)[0] > 0
    assert inside[:, 10:30].all()
    assert not inside[:, :10].any()


def test_evaluation_counts_pixels(model, world, monkeypatch):
    subject = ModelSubject(model, SamplingOptions())
    exam = Exam(subject, world, Evaluation(data="world", questions=8), 0)
    scores = MaskTask().run(exam).scores
    assert scores["n"] == 8
    assert 0 <= scores["score"] <= 1
    monkeypatch.setattr(
        ModelSubject, "mark", lambda _, samples: [each.masks.open().any(0) for each in samples]
    )
    scores = MaskTask().run(exam).scores
    assert scores["score"] == scores["cumulative"] == 1
    assert scores["everything"] < 0.5
    assert overlap(np.array([[True, True]]), np.array([[True, False]])) == (1, 2)
