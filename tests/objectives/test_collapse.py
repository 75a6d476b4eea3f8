"""A representation that has become the same for all pictures is noticed and said."""

import torch
from rich.console import Console
from small import raw

from chiasm.objectives.feature_distillation import FeatureDistillation
from chiasm.objectives.health import effective_rank, spread
from chiasm.recipe import load_recipe
from chiasm.training import train
from chiasm.training.metrics import read_metrics

STEPS = "stages.pretrain.steps=80"


def run(recipe, folder, *overrides):
    console = Console(record=True, width=300, file=open("/dev/null", "w"))  # noqa: SIM115
    train(load_recipe(recipe, [STEPS, "checkpoints.every=100", *overrides]), folder, console=console)
    return console.export_text(), read_metrics(folder)


def test_spread_is_one_of_random_directions_and_none_of_one():
    x = torch.randn(500, 64)
    assert 0.95 < spread(x) < 1.05
    assert spread(x[:1].expand(500, -1)) < 1e-6


def test_rank_counts_the_directions():
    x = torch.randn(500, 64)
    assert effective_rank(x) > 55
    assert 2.5 < effective_rank(x[:, :3] @ torch.randn(3, 64)) <= 3.01


def test_dino_without_centering_or_sharpening_is_said_to_collapse(tmp_path):
    recipe = raw("self_distillation")
    recipe["stages"][0]["objective"] |= {
        "center_momentum": 1.0,
        "teacher_temperature": [1.0, 1.0],
        "momentum": 0.9,
    }
    said, lines = run(recipe, tmp_path / "run")
    assert "objective 'self_distillation' has collapsed" in said
    assert "warning" in lines[-1]
    assert lines[-1]["health"]["information"] < 0.01


def test_a_constant_teacher_is_said_to_collapse(tmp_path, monkeypatch):
    constant = torch.arange(48.0) / 24
    monkeypatch.setattr(
        FeatureDistillation, "_targets", lambda self, x, high, wide: constant.expand(len(x), high * wide, -1)
    )
    recipe = raw("feature_distillation")
    recipe["stages"][0] |= {"train": {"encoder": 1e-2, "objective": 1e-3}}
    said, lines = run(recipe, tmp_path / "run", "stages.pretrain.steps=150")
    assert "objective 'feature_distillation' has collapsed" in said
    assert lines[-1]["health"]["spread"] < 0.02


def test_a_healthy_run_is_not_said_to_collapse(tmp_path):
    said, lines = run(raw("contrastive"), tmp_path / "run")
    assert "collapsed" not in said
    assert not any("warning" in line for line in lines)
