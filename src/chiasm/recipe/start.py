"""Fine-tuning: a recipe whose `start` names a checkpoint uses its model and begins with its weights.

start: models/llava          # an imported checkpoint, or a run of ours
start: {folder: models/blip2, slots: [encoder, connector]}              # or some parts of it alone
model: {image_tokenizer: {type: vq}, heads: {image: {type: raster, alphabet: {type: own}}}}     # what is added
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from chiasm.errors import RecipeError, nearest, quoted
from chiasm.recipe.checkpoints import find_checkpoint, read_parts
from chiasm.recipe.overlay import merge
from chiasm.recipe.slots import as_written

ORIGIN = "origin"  # what an import keeps beside the model, for exporting it again
_PROBES, _PROBE = 64, 1 << 16  # stretches of a file, and bytes of each, by which weights are told apart


def taken_over(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A raw recipe with its `start`'s model under its own; raises CheckpointError for a folder without one."""
    named, slots = _folder_and_slots(raw["start"])
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
    _check_scratch(model, raw.get("model"), folder)
    start = {"folder": str(folder), "fingerprint": fingerprint(folder), "slots": slots}
    return {**raw, "model": merge(as_written(model), raw.get("model") or {}, "model"), "start": start}


def _check_scratch(model: Mapping[str, Any], own: Any, folder: Path) -> None:
    """Raise RecipeError for an `embedding_std` of tables that the checkpoint has."""
    language, stated = model.get("language"), own.get("language") if isinstance(own, Mapping) else None
    if language is None or not isinstance(stated, Mapping) or stated.get("embedding_std") is None:
        return
    kept = stated.get("type", language["type"]) == language["type"]
    if kept and stated["embedding_std"] != language.get("embedding_std"):
        raise RecipeError(
            f"model.language.embedding_std is of models from scratch; the start {folder} has tables of words"
        )


def _folder_and_slots(start: Any) -> tuple[str, list[str] | None]:
    """The folder, and the slots that are taken from it; None = all."""
    options = dict(start) if isinstance(start, Mapping) else {"folder": start}
    folder, slots = options.pop("folder", None), options.pop("slots", None)
    valid = slots is None or (isinstance(slots, list) and all(isinstance(slot, str) for slot in slots))
    if options or not isinstance(folder, str | Path) or not valid:
        raise RecipeError(
            f"start must be the folder of a checkpoint, or {{folder: ..., slots: [...]}}, not {quoted(start)}"
        )
    return str(folder), slots


def targets_alone(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Slots that only made what an objective asked for: an image tokenizer whose codes nothing writes or reads."""
    none = "language" not in spec or "heads.image" in spec
    return () if none else ("image_tokenizer", "image_decoder")


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
