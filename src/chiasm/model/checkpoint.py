"""Models in folders: complete, atomic, and read without executing anything from them.

A folder holds `recipe.yaml` (the resolved recipe), `parts.json` (with which the model is rebuilt without the
checkpoints it was made from, and which tensors are one and the same), `model.safetensors`, if the model has
a language slot `tokenizer/`, and `checksums.json`. A training checkpoint may hold frozen slots by reference
(`chiasm.storage.frozen`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chiasm.distribution.devices import choose_device, choose_dtype
from chiasm.errors import CheckpointError
from chiasm.recipe.checkpoints import find_checkpoint, read_parts, read_weights
from chiasm.recipe.slots import as_written
from chiasm.storage.folders import untied, whole_folder, write_json, write_tensors
from chiasm.storage.frozen import set_aside
from chiasm.storage.integrity import check_seal, seal
from chiasm.storage.skeleton import stream_into, without_weights
from chiasm.storage.weights import check_fit

if TYPE_CHECKING:
    from chiasm.model import Model
    from chiasm.recipe import Recipe

FULL = ("image_tokenizer.", "image_decoder.")  # slots that keep their precision


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

    device, dtype: see `chiasm.distribution.devices`; by default the fastest device, and each weight as the
        checkpoint has it.
        What makes codes, and pixels of them, always keeps the checkpoint's: small differences there decide codes.
    Raises CheckpointError that names what is missing, left over or of another shape.
    """
    place = choose_device(device)
    numbers = choose_dtype(dtype, place)
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
