"""A model that begins with the weights of a checkpoint which its recipe names (`start`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.recipe.checkpoints import read_parts, read_weights
from chiasm.recipe.start import ORIGIN, fingerprint, targets_alone
from chiasm.storage.integrity import check_seal
from chiasm.storage.weights import load_into

if TYPE_CHECKING:
    from chiasm.model import Model
    from chiasm.recipe import Start


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
