"""Folders that appear whole or not at all, and the files in them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from chiasm.errors import CheckpointError, ChiasmError, excerpt
from chiasm.storage import safe_json
from chiasm.storage.integrity import sync


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Raises CheckpointError for what is no file of JSON, a pipe without a writer too."""
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} cannot be read: it is no file")
        return safe_json.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file of JSON; raises CheckpointError, also for what holds something else."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no object ({{...}}) but {excerpt(content)}")
    return content


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A draft folder that becomes `folder` when the block ends, and vanishes when it fails."""
    check_replaceable(folder)
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


def is_nameless(path: Path) -> bool:
    """Whether a path ends in no name, as `.`, `..` and `/` do."""
    return path.name in ("", "..")


def check_replaceable(path: Path) -> None:
    """Raise CheckpointError for a path without a name: what is written beside it could not take its place."""
    if is_nameless(path):
        raise CheckpointError(f"nothing can be written in the place of {path}; name a file or folder in it")


def check_folder(path: Path) -> None:
    """Raise ChiasmError for a path that is no folder and cannot become one, because a file is in its way."""
    there = next((each for each in (path, *path.parents) if each.exists() or each.is_symlink()), None)
    if there is not None and not there.is_dir():
        raise ChiasmError(f"{there} is a file; name a folder")


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


def _put_back(old: Path, folder: Path) -> None:
    """Undo a replacement that got no further than moving the old folder aside."""
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)


def _write_failure(folder: Path, error: Exception) -> str:
    return full_disk(folder, error) or f"the checkpoint {folder} cannot be written: {error}"


def _os_error(error: Exception) -> int | None:
    """The number in the text of an error of the safetensors library, which has no other place for it."""
    match = re.search(r"os error (\d+)", str(error))
    return int(match.group(1)) if match else None
