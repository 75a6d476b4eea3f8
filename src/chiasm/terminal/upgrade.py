"""`chiasm upgrade`: a run, a checkpoint or a recipe of an older form (`chiasm.recipe.forms`) in today's.

What is converted is written beside the original and takes its place when all of it is there and can be read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError, RecipeError
from chiasm.model.checkpoint import open_model
from chiasm.recipe import find_base, load_recipe, read_raw, write_text
from chiasm.recipe.checkpoints import FILES, read_record
from chiasm.recipe.forms import Rename, renamed, renewed, slot_today
from chiasm.recipe.overlay import merge
from chiasm.recipe.slots import as_written
from chiasm.recipe.start import fingerprint_of
from chiasm.storage import safe_yaml
from chiasm.storage.claim import claimed
from chiasm.storage.folders import whole_folder, write_json, write_tensors
from chiasm.storage.frozen import FOLDER, fetched, prune
from chiasm.storage.integrity import CHECKSUMS, check_seal, digest_of, seal
from chiasm.storage.weights import read_tensors
from chiasm.storage.yaml_edit import edited


def upgrade(path: str | Path) -> list[str]:
    """Bring a run's folder, a checkpoint's or a recipe's file up to date; returns what was changed, line by line.

    Nothing is changed where all is of today's form. Raises ChiasmError naming what cannot be converted; then all of
    a folder, or the file, is as it was.
    """
    place = Path(path).resolve()
    if place.is_file():
        return _recipe_file(place)
    if not (place / "recipe.yaml").is_file():
        raise CheckpointError(f"{path} is no recipe's file, and no folder of a run or a checkpoint")
    run = place.parent.parent if place.parent.name == "checkpoints" else place.parent
    if (run / "run.json").is_file():
        raise CheckpointError(f"{path} belongs to the run {run}; upgrade all of it: chiasm upgrade {run}")
    with _untrained_meanwhile(place):
        return _folder(place) if _is_old(place) else []


def _is_old(folder: Path) -> bool:
    """Whether anything in a folder is of an older form."""
    recipes = [folder / "recipe.yaml", *(each / "recipe.yaml" for each in _checkpoints(folder))]
    if any(renewed(read_raw(path))[1] for path in recipes):
        return True
    return any(
        renewed({"model": record["model"]})[1] or any(rename(name) != name for name in _names(each, record))
        for each in _checkpoints(folder)
        for record in [read_record(each)]
        for rename in [renamed(record["model"])]
    )


def _folder(folder: Path) -> list[str]:
    with whole_folder(folder) as draft:
        shutil.copytree(folder, draft, copy_function=_link, symlinks=True, dirs_exist_ok=True)
        changes = []
        for checkpoint in _checkpoints(draft):
            where = checkpoint.relative_to(draft).as_posix()
            lines = _checkpoint(checkpoint, draft, folder)
            changes += lines if checkpoint == draft else [f"{where}: {line}" for line in lines]
        if not (draft / "parts.json").is_file():
            changes = [*_resolved(draft / "recipe.yaml"), *changes]
            load_recipe(draft / "recipe.yaml")
        if (draft / FOLDER).is_dir():
            records = [read_record(each) for each in _checkpoints(draft)]
            prune(draft, [each["hash"] for record in records for each in record.get("frozen", {}).values()])
    return changes


def _checkpoint(folder: Path, draft: Path, destination: Path) -> list[str]:
    """Convert a checkpoint within the draft of what will be `destination`."""
    check_seal(folder)
    record = read_record(folder)
    rename = renamed(record["model"])
    changes = _resolved(folder / "recipe.yaml")
    own = fingerprint_of(folder, record)
    tensors = read_tensors(folder / "model.safetensors")
    count = sum(rename(name) != name for name in tensors)
    references: dict[str, Any] = {}
    for slot, reference in record.get("frozen", {}).items():
        frozen = fetched({slot: reference}, folder)
        if not any(rename(name) != name for name in frozen):
            references[slot_today(slot)] = reference
            continue
        count += len(frozen)
        frozen = _under_new_names(frozen, rename, folder)
        if folder == draft:  # no run holds it, so nothing may be written where the reference points
            tensors |= frozen
            continue
        digest = digest_of(frozen)
        name = f"{FOLDER}/{digest}.safetensors"
        if not (draft / name).is_file():
            write_tensors(draft / name, frozen)
        references[slot_today(slot)] = {"hash": digest, "file": str(destination / name)}
    if count:
        _replace(folder / "model.safetensors", _under_new_names(tensors, rename, folder))
        changes.append(f"{count} tensors have other names")
        record.setdefault("fingerprint", own)
    own_model = renewed({"model": record["model"]})[0]["model"]
    record["model"] = _completed(own_model, as_written(load_recipe(folder / "recipe.yaml").model))
    record["tied"] = {rename(name): rename(original) for name, original in record["tied"].items()}
    if "frozen" in record:
        record["frozen"] = references
    (folder / "parts.json").unlink()
    write_json(folder / "parts.json", record)
    _upgrade_state(folder, rename)
    if (folder / CHECKSUMS).is_file():
        (folder / CHECKSUMS).unlink()
        seal(folder)
    open_model(folder)  # raises where it does not fit
    return changes


def _completed(own: Any, resolved: Any) -> Any:
    """The parts of a checkpoint with the options that they did not have before, as the recipe spells them out."""
    if not isinstance(own, Mapping) or not isinstance(resolved, Mapping):
        return own
    keys = {**resolved, **own} if "type" in own else own
    return {key: _completed(own.get(key, resolved.get(key)), resolved.get(key)) for key in keys}


def _upgrade_state(folder: Path, rename: Rename) -> None:
    """The state of the optimiser, by the names of its parameters."""
    path = folder / "state.safetensors"
    if not path.is_file():
        return
    tensors = read_tensors(path)

    def today(name: str) -> str:
        kind, _, rest = name.partition("/")
        parameter, _, moment = rest.rpartition("/")
        return f"{kind}/{rename(parameter)}/{moment}" if kind == "optimiser" else name

    if any(today(name) != name for name in tensors):
        _replace(path, _under_new_names(tensors, today, folder))


def _recipe_file(path: Path, above: tuple[Path, ...] = ()) -> list[str]:
    """Convert a recipe's file and those that it is laid over, its comments kept where they can be."""
    if path.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"{path} is no recipe: its name does not end in .yaml")
    old = read_raw(path)
    changes: list[str] = []
    under: dict[str, Any] = {}
    if isinstance(old.get("base"), str):
        base = find_base(old["base"], path.parent).resolve()
        if base in (path, *above):
            raise RecipeError(f"{path} is its own base")
        changes += [f"{base.name}: {line}" for line in _recipe_file(base, (path, *above))]
        under = _laid_out(base)
    new, own = renewed(old, under)
    if own:
        text = edited(path.read_text(encoding="utf-8"), old, new)
        if text is None:
            own.append("written anew, without its comments")
        write_text(path, safe_yaml.write(new) if text is None else text)
    return changes + own


def _laid_out(path: Path) -> dict[str, Any]:
    """A raw recipe with all that it is laid over under it."""
    raw = read_raw(path)
    base = raw.get("base")
    return merge(_laid_out(find_base(base, path.parent)), raw) if isinstance(base, str) else raw


def _resolved(path: Path) -> list[str]:
    """Convert a resolved recipe, which no hand has written."""
    recipe, changes = renewed(read_raw(path))
    if changes:
        write_text(path, safe_yaml.write(recipe))
    return changes


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, or the one that the folder is."""
    places = (folder, *sorted((folder / "checkpoints").glob("[!.]*")), folder / "final")
    return [place for place in places if all((place / name).is_file() for name in FILES)]


def _names(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """The names of all tensors that stand in a checkpoint's own folder."""
    return [*read_tensors(folder / "model.safetensors"), *record["tied"]]


def _under_new_names(tensors: Mapping[str, Tensor], rename: Rename, folder: Path) -> dict[str, Tensor]:
    today = {rename(name): tensor for name, tensor in tensors.items()}
    if len(today) != len(tensors):
        raise CheckpointError(f"{folder} holds tensors of the older and of today's form at once")
    return today


def _replace(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file anew; the old one, which may still be linked or mapped, is not touched."""
    draft = path.with_name(f".{path.name}.new")
    write_tensors(draft, tensors)
    os.replace(draft, path)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # of a file system without links
        shutil.copy2(source, target)


def _untrained_meanwhile(folder: Path) -> AbstractContextManager[None]:
    """Nobody trains meanwhile, where the folder is a run's."""
    return claimed(folder) if (folder / "run.json").is_file() else nullcontext()
