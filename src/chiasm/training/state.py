"""All the state of a training run in one place: what a checkpoint holds in addition to the model."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from chiasm.distribution.processes import Ranks
from chiasm.errors import CheckpointError, DivergedError
from chiasm.model import Model
from chiasm.model.checkpoint import write_model
from chiasm.objectives import Objective
from chiasm.recipe import Recipe, Stage, load_recipe
from chiasm.recipe.checkpoints import read_parts, training_checkpoints
from chiasm.storage.folders import remove_folder, untied, whole_folder, write_json, write_tensors
from chiasm.storage.frozen import fetched, prune
from chiasm.storage.integrity import check_seal, seal
from chiasm.storage.weights import is_finite, load_into, read_tensors
from chiasm.training.optimiser import Optimiser, optimiser_state
from chiasm.training.position import Position, RandomPosition, read_position


def save_checkpoint(
    run: Path,
    recipe: Recipe,
    model: Model,
    optimiser: Optimiser,
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
    frozen = () if recipe.checkpoints.whole else _frozen(model, stage)
    tensors = {f"optimiser/{key}": value for key, value in optimiser_state(optimiser).items()}
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
        try:
            _restore_random(self.position.random[rank], self._under(f"random/{rank}/"))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.folder} does not hold the state of random numbers: {error}"
            ) from None

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def last_checkpoint(run: Path, recipe: Recipe, ranks: Ranks, say: Callable[[str], None]) -> Saved | None:
    """The newest training checkpoint of a run that can be read; those that cannot are set aside and reported.

    Raises CheckpointError when it is of another recipe, or when none of several can be read.
    """
    newest = ranks.gather(_newest_good(run, say) if ranks.first else None)[0]
    if newest is None:
        return None
    folder, position, world = newest
    saved_recipe = load_recipe(folder / "recipe.yaml")
    differing = differing_keys(recipe, saved_recipe)
    if differing and not only_more_steps(recipe, saved_recipe, differing):
        raise CheckpointError(
            f"the checkpoint {folder} is of another recipe; it differs in {', '.join(differing)}"
        )
    if world != ranks.world:
        raise CheckpointError(
            f"the checkpoint {folder} was made by {world} processes; go on with as many, not {ranks.world}"
        )
    stages = recipe.stages
    if not (position.stage < len(stages) and position.step <= stages[position.stage].steps):
        raise CheckpointError(
            f"{folder / 'state.json'} says stage {position.stage}, step {position.step}, which the recipe has not"
        )
    return Saved(folder, position, read_tensors(folder / "state.safetensors"))


def _newest_good(run: Path, say: Callable[[str], None]) -> tuple[Path, Position, int] | None:
    damaged: list[tuple[Path, str]] = []
    good = None
    for folder in reversed(training_checkpoints(run)):
        try:
            good = folder, *_verified(folder)
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


def _verified(folder: Path) -> tuple[Position, int]:
    """The position of a checkpoint, and of how many processes; raises CheckpointError unless all of it is whole."""
    check_seal(folder, required=True)
    fetched(read_parts(folder).get("frozen", {}), folder)
    return read_position(folder / "state.json")


def _move_aside(folder: Path) -> None:
    target = folder.with_name(f".{folder.name}.damaged")
    try:
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    except OSError as error:
        raise CheckpointError(f"the damaged checkpoint {folder} cannot be set aside: {error}") from None


def _frozen(model: Model, stage: Stage) -> list[str]:
    """Slots that the stage leaves as they are; with a decoder of its own an image tokenizer may learn in part."""
    return [
        slot
        for slot, part in model.slots().items()
        if slot not in stage.train
        and not (isinstance(part, nn.Module) and any(p.requires_grad for p in part.parameters()))
    ]


def _check_finite(model: Model, stage: str, step: int) -> None:
    broken = [name for name, tensor in model.state_dict().items() if not is_finite(tensor)]
    if broken:
        raise DivergedError(
            f"stage {stage!r}: behind step {step} {len(broken)} tensors of the model are not finite, among them "
            f"{broken[0]}, so nothing was saved; lower its learning rate, and go on from the last checkpoint"
        )


def differing_keys(recipe: Recipe, saved: Recipe) -> list[str]:
    """Dotted keys that make it another training: not how often it is saved, sampled from or evaluated."""
    used = {name for stage in recipe.stages for name in stage.data}

    def matters(key: str) -> bool:
        section, _, rest = key.partition(".")
        if section == "data":
            return rest.split(".")[0] in used
        return section not in ("about", "checkpoints", "sampling", "evaluation")

    return [key for key in recipe.differs_from(saved) if matters(key)]


def only_more_steps(recipe: Recipe, saved: Recipe, differing: Sequence[str]) -> bool:
    """Whether the two differ only in that mine gives the last stage more steps."""
    if len(recipe.stages) != len(saved.stages):
        return False
    more = recipe.stages[-1].steps > saved.stages[-1].steps
    return more and list(differing) == [f"stages.{len(recipe.stages) - 1}.steps"]


def _prune(run: Path, keep: int) -> None:
    """Keep the last `keep` checkpoints and the best one of the newest stage."""
    folders = training_checkpoints(run)
    places = {folder: _place(folder) for folder in folders}
    rivals = [folder for folder in folders if places[folder][0] == places[folders[-1]][0]]
    best = min(rivals, key=lambda folder: places[folder][1])
    for folder in folders[:-keep]:
        if folder != best:
            remove_folder(folder)
    prune(run, [digest for folder in training_checkpoints(run) for digest in _references(folder)])


def _place(checkpoint: Path) -> tuple[int, float]:
    """Its stage, and how good it is; of one that cannot be read the worst."""
    try:
        position, _ = read_position(checkpoint / "state.json")
    except CheckpointError:
        return -1, float("inf")
    return position.stage, position.score


def _references(checkpoint: Path) -> list[str]:
    """The hashes of the frozen weights that it refers to, as far as it can be read."""
    try:
        return [each["hash"] for each in read_parts(checkpoint).get("frozen", {}).values()]
    except CheckpointError:
        return []


def _random_state() -> tuple[RandomPosition, dict[str, Tensor]]:
    """Of Python and numpy as plain values, of torch as tensors."""
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()  # type: ignore[misc]
    plain: RandomPosition = {
        "python": (version, list(numbers), gauss),
        "numpy": (str(kind), int(place), int(has_gauss), float(cached)),  # type: ignore[arg-type]
    }
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        tensors["mps"] = torch.mps.get_rng_state()
    return plain, tensors


def _restore_random(plain: RandomPosition, tensors: Mapping[str, Tensor]) -> None:
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, place, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), place, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    if "mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["mps"])
