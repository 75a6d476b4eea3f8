"""Chiasm's checkpoints in public layouts: what was imported comes back bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.family import Family, Original, all_families, find_family
from chiasm.interop.mapping import some
from chiasm.interop.origin import ASIDE, FILES, ORIGIN, digest_of_values
from chiasm.language.tokenizer_folder import Templates, folder_template, write_template
from chiasm.recipe.checkpoints import find_checkpoint, read_parts, read_weights
from chiasm.recipe.start import targets_alone
from chiasm.storage.folders import read_object, whole_folder
from chiasm.storage.integrity import check_seal
from chiasm.storage.weights import read_tensors

TRAINING = ("image_tokenizer.critics.", "image_tokenizer.quantize.revival.")


def export_checkpoint(folder: str | Path, destination: str | Path, layout: str | None = None) -> Path:
    """Write a Chiasm checkpoint in a family's layout; without `layout`, the one it was imported from.

    What was imported from that layout comes back bit for bit, in its types and with its other files.
    """
    checkpoint = find_checkpoint(folder)
    record = read_parts(checkpoint)
    if record["model"].get("routing", {}).get("type") == "lora":
        raise CheckpointError(
            f"{folder} has low-rank updates beside its weights; `chiasm merge {folder} OUT` adds them, and OUT "
            "can be exported"
        )
    check_seal(checkpoint)
    tensors = read_weights(checkpoint, record)
    # What only judged or made targets in training; no public layout has room for it.
    training = (*TRAINING, *(f"{slot}." for slot in targets_alone(record["model"])))
    tensors = {name: value for name, value in tensors.items() if not name.startswith(training)}
    origin = read_object(checkpoint / ORIGIN) if (checkpoint / ORIGIN).is_file() else None
    family_name = layout or (origin or {}).get("family")
    if family_name is None:
        raise CheckpointError(f"{folder} was not imported; {_choices(record, tensors, str(folder))}")
    family = find_family(family_name)
    if origin is not None and origin["family"] == family.name:
        original = _restored(
            family, origin, tensors, read_tensors(checkpoint / ASIDE), set(record["tied"]), str(folder)
        )
        side = checkpoint / FILES
    else:
        original = _new(family, record, tensors, str(folder))
        side = checkpoint / "tokenizer"
    with whole_folder(Path(destination)) as draft:
        if side.is_dir():
            shutil.copytree(side, draft, dirs_exist_ok=True)
            _keep_template(checkpoint / "tokenizer", draft)
        if side != checkpoint / FILES:
            family.complete(original, record["model"], tensors, draft)
        family.write(original, draft)
    return Path(destination)


def _new(family: Family, record: Mapping[str, Any], ours: Mapping[str, Tensor], where: str) -> Original:
    """The original of a model that was made here; raises CheckpointError where the family cannot have it."""
    try:
        config = family.config(record["model"])
    except KeyError as error:
        raise CheckpointError(f"{family.name!r} needs {error.args[0]!r}, which {where} has not") from None
    untied = {name: tensor for name, tensor in ours.items() if name not in record["tied"]}
    return Original(config, family.names(config).to_theirs(untied, where))


def _choices(record: Mapping[str, Any], ours: Mapping[str, Tensor], where: str) -> str:
    """The families to which a model that was made here can be exported, or why there are none; ends a sentence."""
    fitting, reasons = [], []
    for name, family in all_families().items():
        if type(family).config is Family.config:
            continue  # takes back alone what came from it
        try:
            _new(family, record, ours, where)
        except CheckpointError as error:
            reasons.append(str(error))
        else:
            fitting.append(name)
    if fitting:
        return f"say to which family it is to be exported (--to): {', '.join(fitting)}"
    return (
        "no family takes it: most take back alone what was imported from them, and of the others "
        f"{'; '.join(reasons)}"
    )


def _restored(
    layout: Family,
    origin: Mapping[str, Any],
    ours: Mapping[str, Tensor],
    unused: Mapping[str, Tensor],
    tied: set[str],
    where: str,
) -> Original:
    """The original's tensors, in its types: what was imported, with the values as they are now."""
    borrowed = origin["borrowed"]
    names = layout.names(origin["config"], [*origin["tensors"], *borrowed])
    theirs = {**unused, **names.to_theirs(ours, where)}
    redundant = {name for ours_name in tied for name in names.their_names(ours_name)}
    restored: dict[str, Tensor] = {}
    places: set[int] = set()  # in memory, of what is restored
    for name, (dtype, shape) in origin["tensors"].items():
        if name not in theirs:
            raise CheckpointError(f"{where}: nothing in the model gives {name}")
        if list(theirs[name].shape) != shape:
            raise CheckpointError(
                f"{where}: {name} is {tuple(theirs[name].shape)} now but was {tuple(shape)}"
            )
        tensor = theirs[name].to(getattr(torch, dtype))
        # Tied here, but the original may have it twice.
        restored[name] = tensor.clone() if tensor.data_ptr() in places else tensor
        places.add(tensor.data_ptr())
    if any(name in theirs and digest_of_values(theirs[name]) != digest for name, digest in borrowed.items()):
        restored |= {name: theirs[name] for name in borrowed if name in theirs}  # it was trained since
    surplus = [n for n in theirs if n not in restored and n not in borrowed and n not in redundant]
    if surplus:
        raise CheckpointError(
            f"{where} has {len(surplus)} tensors that the original had not: {some(surplus)}"
        )
    return Original(origin["config"], restored)


def _keep_template(tokenizer: Path, folder: Path) -> None:
    """Give an exported folder the chat template that was trained with, where its own is another."""
    templates, theirs = (each and _default(each) for each in map(folder_template, (tokenizer, folder)))
    if templates is not None and templates != theirs:
        write_template(folder_template(tokenizer) or templates, folder)


def _default(templates: Templates) -> str | None:
    return templates if isinstance(templates, str) else templates.get("default")
