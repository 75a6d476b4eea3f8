"""Checkpoints as files: where one lies, which parts and which weights it says that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError, ChiasmError, RecipeError, check_path, excerpt
from chiasm.recipe.files import SUFFIXES, recipes
from chiasm.recipe.forms import refuse_old
from chiasm.recipe.slots import by_slot
from chiasm.storage.folders import read_json, read_object
from chiasm.storage.frozen import fetched
from chiasm.storage.weights import read_tensors

FILES = ("recipe.yaml", "parts.json", "model.safetensors")


def find_checkpoint(folder: str | Path) -> Path:
    """The folder with the model in a checkpoint's or a run's folder; raises CheckpointError."""
    folder = check_path("folder", folder, CheckpointError)
    places = [folder, folder / "final", *reversed(training_checkpoints(folder))]
    for place in places:
        if all((place / name).is_file() for name in FILES):
            return place
    named = not folder.exists() and str(folder) in recipes()
    if named or (folder.is_file() and folder.suffix in SUFFIXES):
        raise CheckpointError(
            f"{folder} is a recipe, not a run; train it first (chiasm train {folder}), and name the run's folder"
        )
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {excerpt(folder, 200)}")
    if any((folder / name).is_file() for name in FILES[1:]):
        missing = ", ".join(name for name in FILES if not (folder / name).is_file())
        raise CheckpointError(f"the checkpoint {folder} lacks {missing}")
    raise CheckpointError(
        f"{folder} holds no checkpoint: neither {', '.join(FILES)} nor a training run's checkpoints"
    )


def refuse_run(folder: Path, of_what: str) -> None:
    """Raise ChiasmError for a folder that holds a run or a checkpoint, where something else is to be written."""
    begun = (folder / "recipe.yaml").is_file() and (folder / "checkpoints").is_dir()
    if begun or any((folder / name).is_file() for name in ("run.json", *FILES[1:])):
        raise ChiasmError(f"{folder} holds a run or a checkpoint; choose another folder for {of_what}")


def training_checkpoints(run: Path) -> list[Path]:
    """The training checkpoints of a run, oldest first; first those whose state cannot be read."""
    checkpoints = [path for path in (run / "checkpoints").glob("[!.]*") if path.is_dir()]
    return sorted(checkpoints, key=lambda folder: (_order(folder / "state.json"), folder.name))


def read_parts(folder: Path) -> dict[str, Any]:
    """What `parts.json` of a checkpoint holds, its model by slots.

    Raises CheckpointError unless it describes a model, and OutdatedError where it does so in an older form.
    """
    record = read_record(folder)
    refuse_old({"model": record["model"]}, folder / "parts.json")
    return {**record, "model": by_slot(record["model"], "model")}


def read_record(folder: Path) -> dict[str, Any]:
    """What `parts.json` holds, of whatever form; raises CheckpointError unless it describes a model."""
    record = read_object(folder / "parts.json")
    try:
        slots = by_slot(record["model"], "model")
        described = all(isinstance(options["type"], str) for options in slots.values())
        described &= all(isinstance(name, str) for pair in record["tied"].items() for name in pair)
        references = record.get("frozen", {}).values()
        described &= all(isinstance(each[key], str) for each in references for key in ("hash", "file"))
        described &= isinstance(record.get("fingerprint", ""), str)
    except (KeyError, TypeError, AttributeError, RecipeError):
        described = False
    if not described:
        raise CheckpointError(f"{folder / 'parts.json'} does not describe a model")
    return record


def read_weights(folder: Path, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of a checkpoint under all of their names. record: of `read_parts`."""
    tensors = read_tensors(folder / "model.safetensors") | fetched(record.get("frozen", {}), folder)
    for name, original in record["tied"].items():
        if original in tensors:
            tensors.setdefault(name, tensors[original])
    return tensors


def _order(state: Path) -> tuple[int, int]:
    try:
        record = read_json(state)
        return int(record["stage"]), int(record["step"])
    except (CheckpointError, KeyError, TypeError, ValueError, OverflowError):
        return -1, -1
