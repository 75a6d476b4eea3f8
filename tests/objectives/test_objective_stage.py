"""A stage with an objective: what it trains, what it remembers, and what a recipe may not ask of it."""

import signal

import pytest
import torch
from rich.console import Console
from small import OBJECTIVES, raw

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.training import Interrupted, loop, train
from chiasm.training.metrics import read_metrics


def quiet():
    return Console(quiet=True)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_stage_that_was_stopped_ends_as_if_it_had_not_been(name, tmp_path, monkeypatch):
    recipe = load_recipe(raw(name))
    train(recipe, tmp_path / "whole", console=quiet())
    original, done = loop.TrainStep.__call__, []

    def stopping(self, batches):
        done.append(None)
        if len(done) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(loop.TrainStep, "__call__", stopping)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "stopped", console=quiet())
    train(recipe, tmp_path / "stopped", console=quiet())
    files = [(tmp_path / each / "final" / "model.safetensors").read_bytes() for each in ("whole", "stopped")]
    assert files[0] == files[1]
    lines = [
        [
            {k: v for k, v in line.items() if k not in ("seconds", "waited")}
            for line in read_metrics(tmp_path / each)
        ]
        for each in ("whole", "stopped")
    ]
    assert lines[0] == lines[1]
    assert all(line["health"] for line in lines[0])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_trains_what_it_names_and_leaves_nothing_behind(name, tmp_path):
    recipe = load_recipe(raw(name))
    model = load_model(train(recipe, tmp_path / "run", console=quiet()))
    fresh = loop_model(recipe)
    changed = {
        key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, fresh[key])
    }
    handed = set(parts.lookup("objective", name).hands)
    assert changed == set(recipe.stages[0].train) - {"objective"} | handed


def loop_model(recipe):
    from chiasm.training.train import build_model

    return build_model(recipe).state_dict()


PAIRED = ("contrastive", "sigmoid", "qformer_stage1")  # what cannot be shared out


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_batches_of_a_step_are_added_up_or_refused(name, tmp_path):
    recipe = load_recipe(raw(name), ["stages.pretrain.accumulate=2", "stages.pretrain.steps=2"])
    if name in PAIRED:
        with pytest.raises(RecipeError, match=f"objective '{name}' compares every pair of a batch"):
            train(recipe, tmp_path / "run", console=quiet())
        return
    train(recipe, tmp_path / "run", console=quiet())
    assert len(read_metrics(tmp_path / "run")) == 2


def test_a_rate_for_an_objective_without_weights_is_refused_before_anything_is_trained():
    recipe = raw("token_alignment")
    recipe["stages"][0]["train"]["objective"] = 1e-3
    with pytest.raises(RecipeError, match="trains its objective, but 'token_alignment' has no weights"):
        load_recipe(recipe)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": {"type": "contrastiv"}}, "no objective 'contrastiv'; did you mean 'contrastive'"),
        ({"objective": {"type": "contrastive", "widht": 3}}, "stages.pretrain.objective.widht"),
        ({"objective": None}, "trains an objective but has none"),
        ({"train": {"encoder": 1e-3, "language": 1e-3, "objective": 1e-3}}, "teaches it nothing"),
        ({"weights": {"text": 2.0}}, "weighs the loss 'text'"),
        ({"train": {"encoder": 1e-3}}, "does not train the weights of objective 'contrastive'"),
    ],
)
def test_mistakes_are_told(changes, said, tmp_path):
    recipe = raw("contrastive")
    recipe["stages"][0] |= changes
    with pytest.raises(RecipeError, match=said.replace("(", r"\(")):
        train(load_recipe(recipe), tmp_path / "run", console=quiet())
