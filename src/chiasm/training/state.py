"""All that a training run must remember, in one place: what a checkpoint holds beside the model."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chiasm.checkpoint import (
    read_json,
    remove_folder,
    training_checkpoints,
    untied,
    whole_folder,
    write_json,
    write_model,
    write_tensors,
)
from chiasm.errors import CheckpointError
from chiasm.model import Model
from chiasm.objectives import Objective
from chiasm.recipe import Recipe, load_recipe
from chiasm.training.distribution import Ranks
from chiasm.training.mixture import LeftOut
from chiasm.training.optimiser import Optimiser, optimiser_state
from chiasm.weights import load_into, read_tensors


@dataclass
class Position:
    """How far a run has come; plain numbers, written to `state.json`.

    stage, step: index of the stage, and how many of its steps are done.
    total: steps of all stages so far.
    skipped, in_a_row: steps of this stage skipped because they were not finite, and the last of them in a row.
    averages: moving averages of the losses by name, and of the objective.
    tokens: positions that were not padding, in this stage.
    seconds: spent in this stage's steps.
    metrics: bytes of metrics.jsonl that belong to what is done.
    left_out: by stage, the samples that cannot be used: those known before, and of a stage that has ended, all.
    batches: position of each rank's batches.
    random: state of each rank's random numbers beside torch's.
    """

    stage: int = 0
    step: int = 0
    total: int = 0
    skipped: int = 0
    in_a_row: int = 0
    averages: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    metrics: int = 0
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    random: list[dict[str, Any]] = field(default_factory=list)

    @property
    def score(self) -> float:
        """What the best checkpoint of a stage has least of: the moving average of the training objective."""
        return self.averages.get("objective", float("inf"))

    def next_stage(self) -> None:
        fresh = Position(stage=self.stage + 1, total=self.total, metrics=self.metrics, left_out=self.left_out)
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))


def save_checkpoint(
    run: Path,
    recipe: Recipe,
    model: Model,
    made: Optimiser,
    position: Position,
    ranks: Ranks,
    objective: Objective | None = None,
) -> None:
    """Write the model and the whole state of its training, then remove what need not be kept.

    objective: of the stage, where it has one.

    Raises CheckpointError; the last good checkpoint then stays.
    """
    random_states = ranks.gather(_random_state())
    position.random = [state for state, _ in random_states]
    if not ranks.first:
        ranks.wait()
        return
    name = f"{recipe.stages[position.stage].name}-{position.step:06d}"
    tensors = {f"optimiser/{key}": value for key, value in optimiser_state(made).items()}
    if objective is not None:
        tensors |= {f"objective/{key}": value for key, value in untied(objective.state_dict())[0].items()}
    for rank, (_, states) in enumerate(random_states):
        tensors |= {f"random/{rank}/{key}": value for key, value in states.items()}
    with whole_folder(run / "checkpoints" / name) as draft:
        write_model(model, recipe, draft)
        write_tensors(draft / "state.safetensors", tensors)
        write_json(draft / "state.json", asdict(position) | {"score": position.score, "world": ranks.world})
    _prune(run, recipe.checkpoints.keep)
    ranks.wait()


@dataclass(frozen=True)
class Saved:
    """A training checkpoint read from disk."""

    folder: Path
    position: Position
    tensors: dict[str, Tensor]

    def optimiser(self) -> dict[str, Tensor]:
        return self._under("optimiser/")

    def restore_objective(self, objective: Objective) -> None:
        tensors = self._under("objective/")
        for name, original in untied(objective.state_dict())[1].items():
            tensors[name] = tensors[original]
        load_into(objective, tensors, self.folder / "state.safetensors")

    def restore_random(self, rank: int) -> None:
        _restore_random(self.position.random[rank], self._under(f"random/{rank}/"))

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def last_checkpoint(run: Path, recipe: Recipe, ranks: Ranks) -> Saved | None:
    """The newest training checkpoint of a run; raises CheckpointError when it is of something else."""
    folders = training_checkpoints(run)
    if not folders:
        return None
    folder = folders[-1]
    differing = differing_keys(recipe, load_recipe(folder / "recipe.yaml"))
    if differing:
        raise CheckpointError(
            f"the checkpoint {folder} is of another recipe; it differs in {', '.join(differing)}"
        )
    record = read_json(folder / "state.json")
    if record.pop("world") != ranks.world:
        raise CheckpointError(
            f"the checkpoint {folder} was made by {len(record['batches'])} processes; "
            f"go on with as many, not {ranks.world}"
        )
    record.pop("score")
    known = {each.name for each in fields(Position)}
    if record.keys() != known:
        raise CheckpointError(
            f"{folder / 'state.json'}: missing or left over: {', '.join(sorted(record.keys() ^ known))}"
        )
    return Saved(folder, Position(**record), read_tensors(folder / "state.safetensors"))


def differing_keys(mine: Recipe, theirs: Recipe) -> list[str]:
    """Dotted keys that make it another training: not how often it is saved, sampled from or evaluated."""
    used = {name for stage in mine.stages for name in stage.data}

    def matters(key: str) -> bool:
        section, _, rest = key.partition(".")
        if section == "data":
            return rest.split(".")[0] in used
        return section not in ("about", "checkpoints", "sampling", "evaluation")

    return [key for key in mine.differs_from(theirs) if matters(key)]


def _prune(run: Path, keep: int) -> None:
    """Keep the last `keep` checkpoints and the best one of the newest stage."""
    folders = training_checkpoints(run)
    scores = {folder: read_json(folder / "state.json") for folder in folders}
    newest = scores[folders[-1]]["stage"]
    rivals = [folder for folder in folders if scores[folder]["stage"] == newest]
    best = min(rivals, key=lambda folder: scores[folder]["score"])
    for folder in folders[:-keep]:
        if folder != best:
            remove_folder(folder)


def _random_state() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Of Python and numpy as plain values, of torch as tensors."""
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()  # type: ignore[misc]
    plain = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), int(place), int(has_gauss), float(cached)],
    }  # type: ignore[arg-type]
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        tensors["mps"] = torch.mps.get_rng_state()
    return plain, tensors


def _restore_random(plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, place, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), place, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    if "mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["mps"])
