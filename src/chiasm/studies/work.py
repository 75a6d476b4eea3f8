"""What the processes of a study do: train and measure a cell, or work out what a recipe's training takes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from chiasm.data.corpus import corpus
from chiasm.distribution.processes import Ranks
from chiasm.evaluation.cost import flops, parameters
from chiasm.evaluation.evaluate import evaluate
from chiasm.model import Model
from chiasm.nn.losses import objective
from chiasm.parts.plugins import load_plugins
from chiasm.recipe import Recipe, load_recipe, write_text
from chiasm.storage.folders import read_json
from chiasm.storage.skeleton import without_weights
from chiasm.studies.budget import ArmCost, StageCost
from chiasm.studies.records import SECONDS
from chiasm.training import train
from chiasm.training.loop import aim_of, sizes_of
from chiasm.training.train import build_model, build_sources
from chiasm.training.usable import stage_batches

PACKED = 8  # batches whose samples and tokens are counted


def train_and_measure(recipe: str, folder: str, plugins: Sequence[str]) -> None:
    """A cell that was stopped goes on where it was; its processor seconds are added up."""
    began = time.process_time()
    load_plugins(plugins)
    train(recipe, folder)
    evaluate(folder, report=False)
    spent = Path(folder) / SECONDS
    before = read_json(spent) if spent.is_file() else 0.0
    spent.write_text(json.dumps(before + time.process_time() - began))


def write_cost(recipe: str, file: str, id: str, plugins: Sequence[str]) -> None:
    """What the stages of a recipe cost, for `chiasm.studies.agreed`."""
    load_plugins(plugins)
    cost = cost_of(load_recipe(recipe))
    record = {"id": id, "parameters": cost.parameters, "stages": cost.stages}
    write_text(Path(file), json.dumps(record) + "\n")


def cost_of(recipe: Recipe) -> ArmCost:
    """Builds the model as it is trained, packs some batches of each stage, and goes one step in each."""
    model, sources = build_model(recipe), build_sources(recipe)
    stages = {}
    for stage in recipe.stages:
        model.train_only(stage.train)
        batches = stage_batches(model, sources, stage, recipe.seed, Ranks())
        aim = aim_of(model, stage, batches, recipe.seed)
        aim.before_step(0.0)
        packed = [batches.pack() for _ in range(PACKED)]
        batch = batches.fill(packed[0])  # type: ignore[arg-type]
        steps = flops(lambda: objective(aim.losses(batch)).backward())  # noqa: B023 - called at once
        counted = [sizes_of(each[0] if isinstance(each, tuple) else batch) for each in packed]
        real, _, samples = (sum(sizes) / PACKED for sizes in zip(*counted, strict=True))
        tokens = real if aim.unit == "tokens" else 0.0
        stages[stage.name] = StageCost(*(stage.accumulate * each for each in (samples, tokens, steps)))
        model.zero_grad(set_to_none=True)
    return ArmCost(int(parameters(model, recipe)["total"]), stages)


def parameters_of(recipe: Recipe) -> int:
    """Of the whole model, without building its weights."""
    with without_weights():
        return int(parameters(Model(recipe.model, texts=corpus(recipe)), recipe)["total"])
