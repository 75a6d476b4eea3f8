"""Reading by resolution: what a view can show is told from what it cannot."""

import pytest

from chiasm.data.pages import Pages
from chiasm.data.world import World
from chiasm.errors import ChiasmError
from chiasm.evaluation.subject import Subject, expected
from chiasm.evaluation.tasks import Exam, NotApplicable, tasks
from chiasm.recipe import load_recipe
from tiny_recipe import TINY


class Reader(Subject):
    """Reads what 256 pixels of a page's longer side show."""

    sees, draws = True, False

    def answer(self, samples, *, blind=False):
        seen = (not blind and sample.truth["resolution"] <= 256 for sample in samples)
        return [expected(sample) if can else "" for sample, can in zip(samples, seen)]

    def draw(self, samples, *, seed):
        raise NotImplementedError

    def reconstruct(self, images):
        raise NotImplementedError


def exam(source):
    return Exam(Reader(), source, load_recipe({**TINY, "evaluation": {"data": "held-out"}}).evaluation)


def test_scores_stand_by_the_resolution_that_a_question_needs():
    pages = Pages(pages=30, rows=(2, 20), tasks={"question": 3})
    outcome = tasks({"resolution": {"questions": 80, "edges": [128, 256, 512]}})["resolution"].run(
        exam(pages)
    )
    by_band = {name: each["score"] for name, each in outcome.scores["by_type"].items()}
    assert list(by_band) == sorted(by_band)
    assert by_band["128 px"] == by_band["256 px"] == 1
    assert by_band["512 px"] == 0
    assert outcome.scores["blind"] == 0


def test_data_that_says_nothing_of_resolution_is_no_reading():
    world = World(scenes=4, emoji=8, grid=2, objects=(1, 2), tasks={"what": 1})
    with pytest.raises(NotApplicable, match="which resolution"):
        tasks()["resolution"].run(exam(world))


def test_edges_rise():
    with pytest.raises(ChiasmError, match="rising"):
        tasks({"resolution": {"edges": [256, 128]}})
