"""Weights that a stage does not train, kept once for all checkpoints of a run, which name them by their hash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.storage.integrity import digest_of, sync
from chiasm.storage.weights import read_tensors

FOLDER = "frozen"  # of a run
Write = Callable[[Path, Mapping[str, Tensor]], None]
References = Mapping[str, Mapping[str, str]]  # by slot: the hash of its weights, and the file


def set_aside(
    tensors: Mapping[str, Tensor], slots: Iterable[str], run: Path, write: Write
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The remaining tensors, and for each of the slots where in the run's folder its own were written."""
    remaining, references = dict(tensors), {}
    for slot in slots:
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{slot}.")}
        if not own:
            continue
        digest = digest_of(own)
        path = run / FOLDER / f"{digest}.safetensors"
        if not _holds(path, digest):  # all checkpoints of the run hang on this one file
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.draft")
            write(draft, own)
            sync(draft)
            os.replace(draft, path)
            sync(path.parent)
        references[slot] = {"hash": digest, "file": str(path.absolute())}
        remaining = {name: tensor for name, tensor in remaining.items() if name not in own}
    return remaining, references


def fetched(references: References, checkpoint: Path) -> dict[str, Tensor]:
    """The tensors that a checkpoint holds by reference; raises CheckpointError where they are no longer there."""
    tensors: dict[str, Tensor] = {}
    for slot, digest, path in _places(references, checkpoint):
        if not path.is_file():
            raise CheckpointError(
                f"the checkpoint {checkpoint} holds the weights of {slot} by reference, but {path} is missing; "
                "bring it back, or train with checkpoints.whole=true, which keeps all weights in every checkpoint"
            )
        own = read_tensors(path)
        if digest_of(own) != digest:
            raise CheckpointError(
                f"{path}, to which the checkpoint {checkpoint} refers for the weights of {slot}, is not as it was "
                "written: the file is damaged or was changed"
            )
        tensors |= own
    return tensors


def _holds(path: Path, digest: str) -> bool:
    """Whether the file is there and undamaged."""
    try:
        status = path.stat()
        return _digest_in(path, status.st_size, status.st_mtime_ns) == digest
    except (OSError, CheckpointError):
        return False


@lru_cache(maxsize=64)
def _digest_in(path: Path, size: int, changed: int) -> str:
    """Of the tensors in a file that was last changed at a time: read once, and not at every save."""
    return digest_of(read_tensors(path))


def prune(run: Path, used: Iterable[str]) -> None:
    """Remove what no checkpoint refers to any more. used: hashes."""
    used_files = {f"{digest}.safetensors" for digest in used}
    for path in (run / FOLDER).glob("*"):
        if path.name not in used_files and path.is_file():
            path.unlink(missing_ok=True)


def _places(references: References, checkpoint: Path) -> list[tuple[str, str, Path]]:
    """Slot, hash and file of each reference; the file is in the run that the checkpoint is in, or was in."""
    places = []
    for slot, each in references.items():
        in_run = checkpoint.absolute().parent.parent / FOLDER / f"{each['hash']}.safetensors"
        places.append((slot, each["hash"], in_run if in_run.is_file() else Path(each["file"])))
    return places
