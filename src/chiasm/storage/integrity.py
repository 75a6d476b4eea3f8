"""Whether a folder still holds what was written into it: checksums of its files, and of tensors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.storage import safe_json

CHECKSUMS = "checksums.json"
_BLOCK = 1 << 20


def seal(folder: Path) -> None:
    """Write down the checksums of all files of a folder."""
    sums = {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS
    }
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def check_seal(folder: Path, *, required: bool = False) -> None:
    """Raise CheckpointError naming a file that is missing or not as it was written.

    required: the checksums themselves must be there; else a folder without them is taken as it is.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        if required:
            raise CheckpointError(f"{folder} lacks {CHECKSUMS}, by which damage is noticed")
        return
    try:
        sums = safe_json.parse_object(path.read_text(encoding="utf-8"))
        damaged = [name for name, expected in sums.items() if not _is(folder / name, expected)]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if damaged:
        raise CheckpointError(
            f"{folder / damaged[0]} is not as it was written: the file is damaged or was changed; take another "
            f"copy of the folder, or remove its {CHECKSUMS} if the change is meant"
        )


def checksum(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Of the names, types, shapes and bits of tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk itself before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is(path: Path, expected: str) -> bool:
    return path.is_file() and checksum(path) == expected
