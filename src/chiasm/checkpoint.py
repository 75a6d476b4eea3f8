"""Models in folders: complete, atomic, and read without executing anything from them.

A folder holds `recipe.yaml` (the resolved recipe), `parts.json` (with which the model is rebuilt without the
checkpoints it was made from, and which tensors are one and the same), `model.safetensors`, if the model has
a language slot `tokenizer/`, and `checksums.json`. A training checkpoint may hold frozen slots by reference
(`chiasm.frozen`).
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from chiasm import safe_json
from chiasm.devices import choose_device, choose_dtype
from chiasm.errors import CheckpointError, RecipeError
from chiasm.forms import refuse_old
from chiasm.frozen import fetched, set_aside
from chiasm.integrity import check_seal, seal, sync
from chiasm.skeleton import stream_into, without_weights
from chiasm.slots import as_written, by_slot
from chiasm.weights import check_fit, read_tensors

if TYPE_CHECKING:
    from chiasm.model import Model
    from chiasm.recipe import Recipe

FULL = ("image_tokenizer.", "image_decoder.")  # slots that keep their precision
FILES = ("recipe.yaml", "parts.json", "model.safetensors")


def save_model(model: Model, recipe: Recipe, folder: str | Path) -> Path:
    """Write a model and its recipe; the folder appears whole, or not at all.

    Raises CheckpointError when it cannot be written (a full disk); what stood there before then stays.
    """
    with whole_folder(Path(folder)) as draft:
        write_model(model, recipe, draft)
        seal(draft)
    return Path(folder)


def load_model(
    folder: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Model:
    """The model of a checkpoint, or of a training run: its final model, else its last checkpoint.

    device, dtype: see `chiasm.devices`; by default the fastest device, and each weight as the checkpoint has it.
        What makes codes, and pixels of them, always keeps the checkpoint's: small differences there decide codes.
    Raises CheckpointError that names what is missing, left over or of another shape.
    """
    place, numbers = choose_device(device), choose_dtype(dtype)
    folder = find_checkpoint(folder)
    recipe, model, tensors = open_model(folder)
    check_seal(folder)
    stream_into(model, tensors, place, lambda name: None if name.startswith(FULL) else numbers)
    model.sampling = recipe.sampling
    return model.eval()


def open_model(folder: Path) -> tuple[Recipe, Model, dict[str, Tensor]]:
    """The recipe of a checkpoint, its model without weights, and the weights, which fit it.

    Raises CheckpointError as `load_model`.
    """
    from chiasm.model import Model
    from chiasm.recipe import load_recipe

    recipe = load_recipe(folder / "recipe.yaml")
    record = read_parts(folder)
    spec = record["model"]
    kinds = {slot: options["type"] for slot, options in spec.items()}
    if kinds != {slot: options["type"] for slot, options in recipe.model.items()}:
        raise CheckpointError(
            f"{folder} mixes two checkpoints: parts.json and recipe.yaml name different parts"
        )
    if "language" in spec:
        spec["language"] |= {"tokenizer": str(folder / "tokenizer")}
    tensors = read_weights(folder, record)
    with without_weights():
        model = Model(spec, seed=recipe.seed)
    _check_options(model, spec, recipe, folder)
    check_fit(model, tensors, folder / "model.safetensors")
    return recipe, model, tensors


def read_parts(folder: Path) -> dict[str, Any]:
    """What `parts.json` of a checkpoint holds, its model by slots.

    Raises CheckpointError unless it describes a model, and OutdatedError where it does so in an older form.
    """
    record = read_json(folder / "parts.json")
    try:
        record["model"] = by_slot(record["model"], "model")
        described = all(isinstance(options["type"], str) for options in record["model"].values())
        described &= all(isinstance(name, str) for pair in record["tied"].items() for name in pair)
        references = record.get("frozen", {}).values()
        described &= all(isinstance(each[key], str) for each in references for key in ("hash", "file"))
        described &= isinstance(record.get("fingerprint", ""), str)
    except (KeyError, TypeError, AttributeError, RecipeError):
        described = False
    if not described:
        raise CheckpointError(f"{folder / 'parts.json'} does not describe a model")
    refuse_old({"model": as_written(record["model"])}, folder / "parts.json")
    return record


def read_weights(folder: Path, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of a checkpoint under all of their names. record: of `read_parts`."""
    tensors = read_tensors(folder / "model.safetensors") | fetched(record.get("frozen", {}), folder)
    for name, original in record["tied"].items():
        if original in tensors:
            tensors.setdefault(name, tensors[original])
    return tensors


def find_checkpoint(folder: str | Path) -> Path:
    """The folder with the model in a checkpoint's or a run's folder; raises CheckpointError."""
    folder = Path(folder)
    places = [folder, folder / "final", *reversed(training_checkpoints(folder))]
    for place in places:
        if all((place / name).is_file() for name in FILES):
            return place
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}")
    if any((folder / name).is_file() for name in FILES[1:]):
        missing = ", ".join(name for name in FILES if not (folder / name).is_file())
        raise CheckpointError(f"the checkpoint {folder} lacks {missing}")
    raise CheckpointError(
        f"{folder} holds no checkpoint: neither {', '.join(FILES)} nor a training run's checkpoints"
    )


def training_checkpoints(run: Path) -> list[Path]:
    """The training checkpoints of a run, oldest first; first those whose state cannot be read."""
    checkpoints = [path for path in (run / "checkpoints").glob("[!.]*") if path.is_dir()]
    return sorted(checkpoints, key=lambda folder: (_order(folder / "state.json"), folder.name))


def write_model(
    model: Model, recipe: Recipe, folder: Path, *, run: Path | None = None, frozen: Iterable[str] = ()
) -> None:
    """Write the files of a model into an existing folder.

    frozen: slots whose weights are kept in the folder of the run, and here by reference.
    """
    tensors, tied = untied(model.state_dict())
    references: dict[str, Any] = {}
    if run is not None:
        tensors, references = set_aside(tensors, frozen, run, write_tensors)
    spec = model.standalone()
    if model.speaks:
        spec["language"] |= {"tokenizer": None}  # it stands in the folder itself
    recipe.save(folder / "recipe.yaml")
    record = {"model": as_written(spec), "tied": tied} | ({"frozen": references} if references else {})
    write_json(folder / "parts.json", record)
    write_tensors(folder / "model.safetensors", tensors)
    if model.speaks:
        model.language.tokenizer.save(folder / "tokenizer")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    try:
        return safe_json.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A draft folder that becomes `folder` when the block ends, and vanishes when it fails."""
    draft = folder.with_name(f".{folder.name}.draft")
    old = folder.with_name(f".{folder.name}.old")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        for path in draft.rglob("*"):
            sync(path)
        sync(draft)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(folder, old)
        os.rename(draft, folder)
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_write_failure(folder, error)) from error
    finally:
        _put_back(old, folder)
        shutil.rmtree(draft, ignore_errors=True)


def remove_drafts(folder: Path) -> None:
    """Remove unfinished files of a killed process from `folder`."""
    for path in folder.glob(".*.old"):
        _put_back(path, path.with_name(path.name.removeprefix(".").removesuffix(".old")))
    for path in (*folder.glob(".*.draft"), *folder.glob(".*.old")):
        shutil.rmtree(path, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that nobody ever sees half of it."""
    hidden = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(folder, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _put_back(old: Path, folder: Path) -> None:
    """Undo a replacement that got no further than moving the old folder aside."""
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)


def untied(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, and the further names of those that have several."""
    first: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, tensor in state.items():
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        original = first.setdefault(place, name) if tensor.numel() else name
        if original == name:
            tensors[name] = tensor
        else:
            tied[name] = original
    return tensors, tied


def _order(state: Path) -> tuple[int, int]:
    try:
        record = read_json(state)
        return int(record["stage"]), int(record["step"])
    except (CheckpointError, KeyError, TypeError, ValueError, OverflowError):
        return -1, -1


def _check_options(model: Model, spec: Mapping[str, Mapping[str, Any]], recipe: Recipe, folder: Path) -> None:
    """Raise CheckpointError where `recipe.yaml` contradicts a part that was built."""
    for slot, part in model.slots().items():
        own = part.standalone().keys() | {"tokenizer"}  # only the built part knows these
        for option, listed in recipe.model[slot].items():
            built = spec[slot].get(option)
            if option not in own and json.dumps(built) != json.dumps(listed, default=list):
                raise CheckpointError(
                    f"{folder} mixes two checkpoints: {slot}.{option} is {built} in parts.json, but {listed} in "
                    "recipe.yaml"
                )


def _write_failure(folder: Path, error: Exception) -> str:
    return full_disk(folder, error) or f"the checkpoint {folder} cannot be written: {error}"


def full_disk(folder: Path, error: Exception) -> str | None:
    """A sentence, where what could not be written failed for want of room."""
    number = error.errno if isinstance(error, OSError) else _os_error(error)
    if number not in (errno.ENOSPC, errno.EDQUOT):
        return None
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**20
    return (
        f"the disk is full ({free:.0f} MiB free): {folder} was not written to its end; "
        "make room and start again with the same command"
    )


def _os_error(error: Exception) -> int | None:
    """The number in the text of an error of the safetensors library, which has no other place for it."""
    match = re.search(r"os error (\d+)", str(error))
    return int(match.group(1)) if match else None
