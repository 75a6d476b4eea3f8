"""What a checkpoint holds beside the model: which are kept, which fit, and random numbers that go on."""

import random
from dataclasses import asdict

import numpy as np
import pytest
import torch
from test_position import BATCHES
from toy import toy

from chiasm.distribution.processes import Ranks
from chiasm.errors import CheckpointError
from chiasm.recipe.checkpoints import training_checkpoints
from chiasm.storage.folders import write_json
from chiasm.training import state
from chiasm.training.position import Position
from chiasm.training.state import (
    Saved,
    _prune,
    _random_state,
    differing_keys,
    last_checkpoint,
    only_more_steps,
)


def checkpoint(run, stage, step, score=None, *, world=1):
    folder = run / "checkpoints" / f"{'ab'[stage]}-{step:06d}"
    folder.mkdir(parents=True)
    averages = {} if score is None else {"objective": score}
    position = Position(stage, step, total=100 * stage + step, averages=averages)
    position.batches, position.random = [BATCHES] * world, [_random_state()[0]] * world
    write_json(folder / "state.json", asdict(position) | {"score": position.score, "world": world})
    return folder


def names(run):
    return [folder.name for folder in training_checkpoints(run)]


def test_the_last_are_kept_and_the_best_of_the_newest_stage(tmp_path):
    for stage, step, score in ((0, 1, 0.1), (0, 2, 5.0), (1, 1, 3.0), (1, 2, 2.0), (1, 3, 4.0), (1, 4, 6.0)):
        checkpoint(tmp_path, stage, step, score)
    _prune(tmp_path, 2)
    assert names(tmp_path) == ["b-000002", "b-000003", "b-000004"]
    _prune(tmp_path, 1)
    assert names(tmp_path) == ["b-000002", "b-000004"]
    checkpoint(tmp_path, 1, 5, 1.0)
    _prune(tmp_path, 1)
    assert names(tmp_path) == ["b-000005"]


def test_what_cannot_be_read_is_never_the_best(tmp_path):
    """It sorts before all others and is the first to go."""
    (checkpoint(tmp_path, 1, 3, 0.0) / "state.json").write_text("{")
    checkpoint(tmp_path, 1, 1), checkpoint(tmp_path, 1, 2, 7.0)
    _prune(tmp_path, 1)
    assert names(tmp_path) == ["b-000002"]
    assert state._place(tmp_path / "nowhere") == (-1, float("inf"))


def test_recipes_differ_in_what_makes_another_training_alone():
    recipe = toy()
    same = toy("about=words", "checkpoints.keep=9", "sampling.top_k=3", "evaluation.questions=1")
    assert differing_keys(recipe, same) == []
    assert differing_keys(recipe, toy("seed=1", "data.squares.groups=9")) == ["data.squares.groups", "seed"]
    unused = {"squares": {"type": "test_squares"}, "other": {"type": "test_squares"}}
    assert differing_keys(recipe, toy(data=unused)) == []
    assert differing_keys(toy(data=unused), recipe) == []


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        (["stages.learn.steps=13"], True),
        (["stages.learn.steps=11"], False),
        (["stages.codes.steps=13"], False),
        (["stages.learn.steps=13", "stages.codes.steps=13"], False),
        (["stages.learn.steps=13", "seed=1"], False),
        ([], False),
    ],
)
def test_only_more_steps_of_the_last_stage_go_on_from_what_was_trained(changes, more):
    mine, theirs = toy(*changes), toy()
    assert only_more_steps(mine, theirs, differing_keys(mine, theirs)) == more


@pytest.mark.parametrize("stages", [1, 3])
def test_more_steps_are_those_of_the_last_of_however_many_stages(stages):
    first, last = toy().stages

    def of(steps):
        longer = last.model_copy(update={"steps": steps})
        return toy().model_copy(update={"stages": (first, first, longer)[-stages:]})

    for steps, more in ((9, True), (8, False), (7, False)):
        assert only_more_steps(of(steps), of(8), [f"stages.{stages - 1}.steps"]) == more


def test_a_stage_more_is_not_only_more_steps():
    mine = toy("stages.learn.steps=99")
    shorter = mine.model_copy(update={"stages": mine.stages[:1]})
    assert not only_more_steps(mine, shorter, ["stages.1.steps"])


def drawn():
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_random_numbers_go_on_where_they_were(tmp_path):
    random.gauss(0, 1), np.random.normal()  # of both, half of a pair is left over
    plain, tensors = _random_state()
    expected = [drawn(), random.gauss(0, 1), float(np.random.normal())]
    saved = {f"random/3/{name}": tensor for name, tensor in tensors.items()}
    position = Position(random=[plain] * 4)
    Saved(tmp_path, position, saved).restore_random(3)
    assert [drawn(), random.gauss(0, 1), float(np.random.normal())] == expected
    with pytest.raises(CheckpointError, match="does not hold the state of random numbers"):
        Saved(tmp_path, position, saved).restore_random(2)


class Pair(Ranks):
    """Two ranks, of which this is the first and the other says nothing."""

    def gather(self, value):
        return [value] * 2


@pytest.fixture
def readable(monkeypatch, tmp_path):
    """A run whose checkpoints hold a recipe, a position and one tensor, and are whole."""
    monkeypatch.setattr(state, "check_seal", lambda folder, required: None)
    monkeypatch.setattr(state, "read_parts", lambda folder: {})
    monkeypatch.setattr(
        state, "read_tensors", lambda path: {"optimiser/x": torch.ones(1), "other/x": torch.ones(1)}
    )

    def add(recipe, *position, **options):
        folder = checkpoint(tmp_path, *position, **options)
        recipe.save(folder / "recipe.yaml")
        return folder

    return add


def found(tmp_path, recipe, ranks=None):
    return last_checkpoint(tmp_path, recipe, ranks or Ranks(), lambda sentence: None)


def test_a_run_goes_on_from_its_newest_checkpoint(tmp_path, readable):
    assert found(tmp_path, toy()) is None
    readable(toy(), 1, 3), readable(toy(), 0, 12)
    saved = found(tmp_path, toy("stages.learn.steps=30"))
    assert (saved.folder.name, saved.position.stage, saved.position.step) == ("b-000003", 1, 3)
    assert saved.optimiser().keys() == {"x"}


@pytest.mark.parametrize(
    ("position", "recipe", "message"),
    [
        ((1, 3), ["seed=1"], "of another recipe; it differs in seed"),
        ((1, 13), [], "says stage 1, step 13, which the recipe has not"),
        ((1, 3), ["stages.learn.steps=11"], r"differs in stages\.1\.steps"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, readable, position, recipe, message):
    readable(toy(), *position)
    with pytest.raises(CheckpointError, match=message):
        found(tmp_path, toy(*recipe))


def test_the_edges_of_a_recipe_are_taken(tmp_path, readable):
    readable(toy(), 1, 12)
    assert found(tmp_path, toy()).position.step == 12


def test_a_stage_that_the_recipe_has_not_is_refused(tmp_path, readable):
    one = toy(stages=[toy().model_dump(mode="json")["stages"][0]])
    readable(one, 1, 1)
    with pytest.raises(CheckpointError, match="says stage 1, step 1, which the recipe has not"):
        found(tmp_path, one)


def test_as_many_processes_go_on_as_there_were(tmp_path, readable):
    readable(toy(), 1, 3, world=2)
    with pytest.raises(CheckpointError, match="made by 2 processes; go on with as many, not 1"):
        found(tmp_path, toy())
    assert found(tmp_path, toy(), Pair(0, 2)).position.step == 3


def test_another_rank_than_the_first_writes_no_checkpoint(tmp_path, monkeypatch):
    waited = []

    class Second(Ranks):
        def wait(self):
            waited.append(True)

        def gather(self, value):
            return [value] * 2

    monkeypatch.setattr(state, "_check_finite", lambda *_: None)
    position = Position(1, 3)
    state.save_checkpoint(tmp_path, toy(), None, None, position, Second(1, 2))
    assert waited == [True]
    assert list(tmp_path.iterdir()) == []
    assert len(position.random) == 2


def test_weights_that_are_not_finite_are_named_and_not_saved(tmp_path):
    model = torch.nn.Linear(2, 2)
    model.bias.data[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"stage 'learn': behind step 3 1 tensors .* among them bias"):
        state.save_checkpoint(tmp_path, toy(), model, None, Position(1, 3), Ranks())
    assert list(tmp_path.iterdir()) == []


def test_what_lacks_its_checksums_is_set_aside_for_the_last_good_one(tmp_path, readable, monkeypatch):
    """Also where something was set aside by the same name before."""
    readable(toy(), 0, 12), readable(toy(), 1, 3)
    (tmp_path / "checkpoints" / ".b-000003.damaged").mkdir()
    (tmp_path / "checkpoints" / ".b-000003.damaged" / "old").write_text("")

    def check(folder, required):
        assert required
        if folder.name == "b-000003":
            raise CheckpointError("it lacks checksums")

    monkeypatch.setattr(state, "check_seal", check)
    said = []
    saved = last_checkpoint(tmp_path, toy(), Ranks(), said.append)
    assert saved.folder.name == "a-000012"
    assert said == ["it lacks checksums; going on from a-000012 instead"]
    assert names(tmp_path) == ["a-000012"]
    assert not (tmp_path / "checkpoints" / ".b-000003.damaged" / "old").exists()


def test_where_no_checkpoint_can_be_read_the_newest_says_why(tmp_path, readable, monkeypatch):
    readable(toy(), 0, 12), readable(toy(), 1, 3)

    def check(folder, required):
        raise CheckpointError(f"{folder.name} is damaged")

    monkeypatch.setattr(state, "check_seal", check)
    with pytest.raises(CheckpointError, match=r"no checkpoint of .* can be read \(b-000003 is damaged\)"):
        found(tmp_path, toy())
    assert names(tmp_path) == ["a-000012", "b-000003"]
