"""Edits of the world, and their exact evaluation: the change that was asked for, and all else left alone."""

import numpy as np
import pytest
from PIL import Image

from chiasm import parts
from chiasm.data.sample import Picture
from chiasm.evaluation.evaluate import summary
from chiasm.evaluation.tasks import Exam, NotApplicable
from chiasm.evaluation.tasks.editing import Editing, psnr_outside
from chiasm.evaluation.verdict import verdict
from chiasm.recipe import Evaluation


def world(**tasks):
    options = {
        "emoji": 8,
        "grid": 2,
        "objects": [1, 2],
        "scenes": 20,
        "canvas": 96,
        "drawn_canvas": 64,
        "tints": 1,
    }
    return parts.build("data", {"type": "world", **options, "tasks": tasks})


class Editor:
    """Gives what it is told to of each sample."""

    sees = draws = True

    def __init__(self, answer):
        self.answer = answer

    def draw(self, samples, *, seed):
        return [self.answer(sample) for sample in samples]

    def reconstruct(self, pictures):
        return [picture.open() for picture in pictures]

    targets = reconstruct


def true(sample):
    return sample.messages[-1].content[-1].open()


def scores_of(answer, source):
    return Editing().run(Exam(Editor(answer), source, Evaluation(pictures=12)))


@pytest.mark.parametrize("task", ["edit", "instructed"])
def test_the_mask_of_a_change_is_where_source_and_answer_differ(task):
    source = world(**{task: 1})
    for sample in (sample for i in range(6) for sample in source[i]):
        change = source.change(sample)
        before, after = (np.asarray(image) for image in (change.source.open(), true(sample)))
        assert np.array_equal(change.mask(), (before != after).any(-1))
        assert 0 < change.mask().mean() < 0.6
        shown = sample.messages[0].content[0]
        assert isinstance(shown, Picture)
        assert (shown.size.width, change.source.size.width) == (96, 64)


def test_instructed_answers_begin_with_the_plain_instruction():
    def exchanges(phrasings):
        source = parts.build(
            "data", {"type": "world", "scenes": 8, "phrasings": phrasings, "tasks": {"instructed": 1}}
        )
        return [(s.messages[0].content[1], s.messages[1].content[0]) for i in range(8) for s in source[i]]

    plain, loud = exchanges("plain"), exchanges("train")
    assert all(instruction == words for instruction, words in plain)
    assert [words for _, words in loud] == [words for _, words in plain]
    assert any(instruction != words for instruction, words in loud)


def test_right_answers_are_right_and_leave_the_rest_alone():
    outcome = scores_of(true, world(edit=1))
    scores = outcome.scores
    assert (scores["score"], scores["kept"], scores["all"], scores["psnr_outside"]) == (1.0, 1.0, 1.0, 100.0)
    assert scores["reconstruction"]["change"] == 1.0
    assert {"remove", "replace", "move"} >= set(scores["by_kind"])
    assert sum(each["n"] for each in scores["by_kind"].values()) == scores["n"] == 12
    assert set(outcome.samples["rows"][0]["images"]) == {"source", "edited", "true"}


def test_a_source_given_back_makes_no_change_and_a_new_scene_keeps_nothing():
    source = world(edit=1)
    untouched = scores_of(lambda sample: source.change(sample).source.open(), source).scores
    assert (untouched["change"], untouched["kept"], untouched["psnr_outside"]) == (0.0, 1.0, 100.0)
    assert untouched["untouched"]["change"] == 0.0
    grey = scores_of(lambda sample: Image.new("RGB", (64, 64), "grey"), source).scores
    assert [scores["score"] for kind, scores in grey["by_kind"].items() if kind != "remove"] == [0.0, 0.0]
    assert grey["psnr_outside"] < 25


def test_one_edit_says_nothing_of_how_sure_its_dB_are():
    source = world(edit=1)
    several, one = (Editing().run(Exam(Editor(true), source, Evaluation(pictures=n))).scores for n in (3, 1))
    assert several["psnr_outside_ci"] == [100.0, 100.0]
    assert one["psnr_outside"] == 100.0
    assert "psnr_outside_ci" not in one


def test_dB_are_those_of_the_pixels_outside_the_mask():
    source = Image.new("RGB", (4, 4), (100, 100, 100))
    edited = np.asarray(source).copy()
    edited[:2] = 0  # within the mask
    edited[2:] += 51  # 0.2 without
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    assert psnr_outside(Image.fromarray(edited), source, mask) == pytest.approx(-20 * np.log10(0.2), abs=1e-4)
    assert psnr_outside(Image.fromarray(edited), source, np.ones((4, 4), bool)) == 100.0


def test_the_terminal_and_the_summary_say_both_halves():
    scores = scores_of(true, world(edit=1)).scores
    assert summary("editing", scores).startswith("editing: 100.0% [")
    assert summary("editing", scores).endswith("100.0 dB outside the changes")
    assert "it makes 100% of the changes, and keeps the rest at 100.0 dB" in verdict({"editing": scores})


def test_what_cannot_be_measured_says_why():
    with pytest.raises(NotApplicable, match="no pictures to change that can be checked in its 20 groups"):
        scores_of(true, world(draw=1))
    blind = Editor(true)
    blind.sees = False
    with pytest.raises(NotApplicable, match="reads no images"):
        Editing().run(Exam(blind, world(edit=1), Evaluation(pictures=4)))
