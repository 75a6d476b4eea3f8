"""Zoom on against off, on the same questions."""

import pytest

from chiasm.data.world import World
from chiasm.errors import ChiasmError, RecipeError
from chiasm.evaluation.evaluate import examine
from chiasm.evaluation.subject import ModelSubject, expected
from chiasm.evaluation.tasks import Exam, NotApplicable, check, tasks
from chiasm.inference.zoom import ZoomedAnswer
from chiasm.recipe import load_recipe
from chiasm.views import Size
from chiasm.views.focus import Focus
from tiny_recipe import TINY


class Seer(ModelSubject):
    """Right with the second look alone, which it has of every other question."""

    def __init__(self):
        self.sees, self.draws = True, False

    def answer(self, samples, *, blind=False):
        return ["no idea"] * len(samples)

    def zoom(self, samples, settings):
        focus = Focus.of(Size(32, 32), (0.1, 0.1, 0.9, 0.9), settings.margin)
        return [
            ZoomedAnswer(("no idea", expected(sample)), (2.0, 1.0), focus, "[0.1,0.1,0.9,0.9]")
            if i % 2
            else ZoomedAnswer(("no idea", None), problem="no box")
            for i, sample in enumerate(samples)
        ]


@pytest.fixture(scope="module")
def exam():
    world = World(scenes=40, emoji=8, grid=2, objects=(1, 2), canvas=32, tasks={"what": 1, "where": 1})
    recipe = load_recipe({**TINY, "evaluation": {"data": "held-out", "questions": 40}})
    return Exam(Seer(), world, recipe.evaluation)


def test_on_and_off_stand_side_by_side(exam):
    outcome = tasks({"zoom": {"questions": 20}})["zoom"].run(exam)
    assert outcome.scores["n"] == 20
    assert outcome.scores["off"] == 0
    assert outcome.scores["score"] == outcome.scores["looked"] == outcome.scores["chosen"] == 0.5
    assert outcome.samples["asked"][1]["crop"] == [0, 0, 31, 31]


@pytest.mark.parametrize(("named", "ran"), [({}, ["questions"]), ({"zoom": {}}, ["questions", "zoom"])])
def test_it_runs_only_where_it_is_named(monkeypatch, named, ran):
    seen = []
    stubs = {name: Stub(name, seen) for name in ("questions", "zoom")}
    monkeypatch.setattr("chiasm.evaluation.evaluate.tasks", lambda options: stubs)
    recipe = load_recipe({**TINY, "evaluation": {"data": "held-out", "tasks": named}})
    with pytest.raises(ChiasmError, match="nothing of this model can be measured"):
        examine(Seer(), World(scenes=1, emoji=8, grid=2, objects=(1, 2)), recipe)
    assert seen == ran


class Stub:
    def __init__(self, name, seen):
        self.name, self.seen, self.on_request = name, seen, name == "zoom"

    def run(self, exam):
        self.seen.append(self.name)
        raise NotApplicable("a stub")


def test_its_options_are_checked_before_anything_is_trained():
    recipe = load_recipe({**TINY, "evaluation": {"data": "held-out", "tasks": {"zoom": {"sides": 1}}}})
    with pytest.raises(RecipeError, match="sides"):
        check(recipe.evaluation)
