"""All that a training run must remember, in one place: what a checkpoint holds beside the model."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chiasm.checkpoint import (
    read_json,
    read_parts,
    remove_folder,
    training_checkpoints,
    untied,
    whole_folder,
    write_json,
    write_model,
    write_tensors,
)
from chiasm.errors import CheckpointError
from chiasm.frozen import fetched, prune
from chiasm.integrity import check_seal, seal
from chiasm.model import Model
from chiasm.objectives import Objective
from chiasm.recipe import Recipe, load_recipe
from chiasm.training.distribution import Ranks
from chiasm.training.mixture import LeftOut
from chiasm.training.optimiser import Optimiser, optimiser_state
from chiasm.weights import is_finite, load_into, read_tensors


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
    data: identity of each data source that was trained on last.
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
    data: dict[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """What the best checkpoint of a stage has least of: the moving average of the training objective."""
        return self.averages.get("objective", float("inf"))

    def next_stage(self) -> None:
        fresh = Position(
            stage=self.stage + 1,
            total=self.total,
            metrics=self.metrics,
            left_out=self.left_out,
            data=self.data,
        )
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

    Raises CheckpointError, also where weights are not finite; the last good checkpoint then stays.
    """
    stage = recipe.stages[position.stage]
    _check_finite(model, stage.name, position.step)
    random_states = ranks.gather(_random_state())
    position.random = [state for state, _ in random_states]
    if not ranks.first:
        ranks.wait()
        return
    name = f"{stage.name}-{position.step:06d}"
    frozen = () if recipe.checkpoints.whole else [slot for slot in model.slots() if slot not in stage.train]
    tensors = {f"optimiser/{key}": value for key, value in optimiser_state(made).items()}
    if objective is not None:
        tensors |= {f"objective/{key}": value for key, value in untied(objective.state_dict())[0].items()}
    for rank, (_, states) in enumerate(random_states):
        tensors |= {f"random/{rank}/{key}": value for key, value in states.items()}
    with whole_folder(run / "checkpoints" / name) as draft:
        write_model(model, recipe, draft, run=run, frozen=frozen)
        write_tensors(draft / "state.safetensors", tensors)
        write_json(draft / "state.json", asdict(position) | {"score": position.score, "world": ranks.world})
        seal(draft)
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


def last_checkpoint(run: Path, recipe: Recipe, ranks: Ranks, say: Callable[[str], None]) -> Saved | None:
    """The newest training checkpoint of a run that can be read; those that cannot are set aside, and `say` says so.

    Raises CheckpointError when it is of something else, or when none of several can be read.
    """
    found = ranks.gather(_newest_good(run, say) if ranks.first else None)[0]
    if found is None:
        return None
    folder, record = found
    theirs = load_recipe(folder / "recipe.yaml")
    differing = differing_keys(recipe, theirs)
    if differing and not only_more_steps(recipe, theirs, differing):
        raise CheckpointError(
            f"the checkpoint {folder} is of another recipe; it differs in {', '.join(differing)}"
        )
    if record.pop("world") != ranks.world:
        raise CheckpointError(
            f"the checkpoint {folder} was made by {len(record['batches'])} processes; "
            f"go on with as many, not {ranks.world}"
        )
    record.pop("score")
    return Saved(folder, Position(**record), read_tensors(folder / "state.safetensors"))


def _newest_good(run: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    damaged: list[tuple[Path, str]] = []
    good = None
    for folder in reversed(training_checkpoints(run)):
        try:
            good = folder, _verified(folder)
            break
        except CheckpointError as error:
            damaged.append((folder, str(error)))
    if damaged and good is None:
        raise CheckpointError(
            f"no checkpoint of {run} can be read ({damaged[0][1]}); to start afresh, choose another folder or "
            "remove this one"
        )
    for folder, reason in damaged:
        assert good is not None
        say(f"{reason}; going on from {good[0].name} instead")
        _move_aside(folder)
    return good


def _verified(folder: Path) -> dict[str, Any]:
    """What the state of a checkpoint holds; raises CheckpointError unless all of it is as it was written."""
    check_seal(folder, required=True)
    fetched(read_parts(folder).get("frozen", {}), folder)
    record = read_json(folder / "state.json")
    known = {each.name for each in fields(Position)} | {"score", "world"}
    if not isinstance(record, dict) or record.keys() != known:
        missing = ", ".join(sorted(known ^ set(record))) if isinstance(record, dict) else "all"
        raise CheckpointError(f"{folder / 'state.json'}: missing or left over: {missing}")
    return record


def _move_aside(folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.damaged")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    except OSError as error:
        raise CheckpointError(f"the damaged checkpoint {folder} cannot be set aside: {error}") from None


def _check_finite(model: Model, stage: str, step: int) -> None:
    broken = [name for name, tensor in model.state_dict().items() if not is_finite(tensor)]
    if broken:
        raise CheckpointError(
            f"stage {stage!r}: behind step {step} {len(broken)} tensors of the model are not finite, among them "
            f"{broken[0]}, so nothing was saved; lower its learning rate, and go on from the last checkpoint"
        )


def differing_keys(mine: Recipe, theirs: Recipe) -> list[str]:
    """Dotted keys that make it another training: not how often it is saved, sampled from or evaluated."""
    used = {name for stage in mine.stages for name in stage.data}

    def matters(key: str) -> bool:
        section, _, rest = key.partition(".")
        if section == "data":
            return rest.split(".")[0] in used
        return section not in ("about", "checkpoints", "sampling", "evaluation")

    return [key for key in mine.differs_from(theirs) if matters(key)]


def only_more_steps(mine: Recipe, theirs: Recipe, differing: Sequence[str]) -> bool:
    """Whether the two differ only in that mine gives the last stage more steps."""
    if len(mine.stages) != len(theirs.stages):
        return False
    more = mine.stages[-1].steps > theirs.stages[-1].steps
    return more and list(differing) == [f"stages.{len(mine.stages) - 1}.steps"]


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
    kept = [read_parts(folder).get("frozen", {}) for folder in training_checkpoints(run)]
    prune(run, [reference["hash"] for references in kept for reference in references.values()])


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
