"""Fine-tuning: a recipe whose `start` names a checkpoint uses its model and begins with its weights.

start: models/llava          # an imported checkpoint, or a run of ours
start: {folder: models/blip2, slots: [encoder, connector]}              # or some parts of it alone
model: {image_tokenizer: {type: vq}, heads: {image: {type: raster, alphabet: {type: own}}}}     # what is added
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chiasm.checkpoint import find_checkpoint, read_parts, read_weights
from chiasm.errors import CheckpointError, RecipeError, nearest, quoted
from chiasm.integrity import check_seal
from chiasm.overlay import merge
from chiasm.slots import as_written
from chiasm.weights import load_into

if TYPE_CHECKING:
    from chiasm.model import Model
    from chiasm.recipe import Start

ORIGIN = "origin"  # what an import keeps beside the model, for exporting it again
_PROBES, _PROBE = 64, 1 << 16  # stretches of a file, and bytes of each, by which weights are told apart


def taken_over(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A raw recipe with its `start`'s model under its own; raises CheckpointError for a folder without one."""
    named, slots = _asked(raw["start"])
    folder = find_checkpoint(named)
    model = read_parts(folder)["model"]
    if "language" in model:
        model["language"] |= {"tokenizer": str(folder / "tokenizer")}
    for slot in slots or ():
        if slot not in model:
            raise RecipeError(
                f"start.slots names {quoted(slot)}, which {folder} has not{nearest(slot, model)}"
            )
    model = {slot: spec for slot, spec in model.items() if slots is None or slot in slots}
    start = {"folder": str(folder), "fingerprint": fingerprint(folder), "slots": slots}
    return {**raw, "model": merge(as_written(model), raw.get("model") or {}), "start": start}


def _asked(start: Any) -> tuple[str, list[str] | None]:
    """The folder, and the slots that are taken from it; None = all."""
    options = dict(start) if isinstance(start, Mapping) else {"folder": start}
    folder, slots = options.pop("folder", None), options.pop("slots", None)
    valid = slots is None or (isinstance(slots, list) and all(isinstance(slot, str) for slot in slots))
    if options or not isinstance(folder, str | Path) or not valid:
        raise RecipeError(
            f"start must be the folder of a checkpoint, or {{folder: ..., slots: [...]}}, not {quoted(start)}"
        )
    return str(folder), slots


def begin(model: Model, start: Start) -> list[str]:
    """Give a model the weights of a checkpoint, slot by slot; returns the slots that it had none for.

    A vocabulary that has grown (by the marker of an image, say) keeps its words' rows; the new ones are their
    mean, which is never the likeliest, so that the language model's answers stay the same. Raises CheckpointError
    naming what does not fit.
    """
    folder = Path(start.folder)
    if not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder}, with whose weights this recipe starts, is not there; bring it back")
    if fingerprint(folder) != start.fingerprint:
        raise CheckpointError(f"{folder} has other weights than when this recipe was resolved; start afresh")
    record = read_parts(folder)
    tensors = read_weights(folder, record)
    new = []
    for slot, part in model.slots().items():
        if not isinstance(part, torch.nn.Module) or not part.state_dict():
            continue
        theirs = record["model"].get(slot) if start.slots is None or slot in start.slots else None
        if theirs is None or theirs["type"] != model.spec[slot]["type"]:
            new.append(slot)
            continue
        own = {name.removeprefix(f"{slot}."): t for name, t in tensors.items() if name.startswith(f"{slot}.")}
        load_into(part, _grown(own, part.state_dict()) if slot == "language" else own, f"{folder} ({slot})")
    check_seal(folder)
    return new


def keep_origin(model: Model, start: Start, destination: Path) -> None:
    """What an export needs of an imported checkpoint, if the model still has just its parts."""
    source = Path(start.folder) / ORIGIN
    theirs = read_parts(Path(start.folder))["model"]
    ours = model.standalone()
    ours = {slot: spec for slot, spec in ours.items() if slot in theirs or slot not in targets_alone(ours)}
    if source.is_dir() and _structure(theirs) == _structure(ours):
        shutil.copytree(source, destination / ORIGIN, dirs_exist_ok=True)


def targets_alone(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Slots that only made what an objective asked for: an image tokenizer whose codes nothing writes or reads."""
    none = "language" not in spec or "heads.image" in spec
    return () if none else ("image_tokenizer", "image_decoder")


def _structure(spec: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All parts with their options, but for where the text tokenizer lies."""
    return json.loads(
        json.dumps({s: {k: v for k, v in part.items() if k != "tokenizer"} for s, part in spec.items()})
    )


def _grown(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    grown = {}
    for name, tensor in tensors.items():
        shape = own[name].shape if name in own else tensor.shape
        more = shape[0] - tensor.shape[0] if tensor.ndim and len(shape) == tensor.ndim else 0
        if more > 0 and shape[1:] == tensor.shape[1:]:
            tensor = torch.cat([tensor, tensor.mean(0, keepdim=True).expand(more, *tensor.shape[1:])])
        grown[name] = tensor
    return grown


def fingerprint(folder: Path) -> str:
    """Of the size of the file of weights, of stretches of it from one end to the other, and of references.

    Where `chiasm upgrade` gave tensors other names, it is what it was before.
    """
    record = read_parts(folder)
    return record.get("fingerprint") or fingerprint_of(folder, record)


def fingerprint_of(folder: Path, record: Mapping[str, Any]) -> str:
    """Of the files as they are. record: of the folder's `parts.json`."""
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    digest = blake2b(str(size).encode(), digest_size=16)
    with weights.open("rb") as file:
        for probe in range(_PROBES):
            file.seek(max(0, (size - _PROBE) * probe // (_PROBES - 1)))
            digest.update(file.read(_PROBE))
    for slot, reference in sorted(record.get("frozen", {}).items()):
        digest.update(f"{slot} {reference['hash']}".encode())
    return digest.hexdigest()
