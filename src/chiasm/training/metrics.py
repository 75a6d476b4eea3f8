"""The measurements of every step, as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chiasm.errors import CheckpointError
from chiasm.storage import safe_json

# What the report reads of each line.
_KINDS: dict[str, Any] = {"stage": str, "step": int, "seconds": int | float, "losses": dict}


class Metrics:
    """Appends to `metrics.jsonl` and `tensorboard/`; a context manager.

    Args:
        folder: of the run.
        size: bytes of metrics.jsonl to go on from; what a killed run wrote after them is cut off.
        step: the first step to be written, over all stages.
        active: False writes nothing (all ranks but the first).
    """

    def __init__(self, folder: Path, size: int, step: int, *, active: bool = True):
        self.path = folder / "metrics.jsonl"
        self.active = active
        self._board: Any = None
        if active:
            from torch.utils.tensorboard import SummaryWriter

            self._file = open(self.path, "ab")  # noqa: SIM115 - closed by __exit__
            if self._file.tell() > size:
                self._file.truncate(size)
                self._file.seek(0, os.SEEK_END)
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            self._file.close()
            self._board.close()

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """One line; its numbers also go to TensorBoard. step: over all stages."""
        if not self.active:
            return
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        for name, value in _numbers(record):
            self._board.add_scalar(name, value, step)

    def size(self) -> int:
        """Bytes written so far, brought to the disk."""
        if not self.active:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's metrics.jsonl, without a half-written last one.

    Raises CheckpointError naming a line that is damaged.
    """
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = safe_json.parse(line)
        whole = all(isinstance(record[name], kind) for name, kind in _KINDS.items())
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"{where}, is not as training wrote it; remove the line, and what it measured is gone"
        )
    return record


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key not in ("step", "total"):
            yield prefix + key, float(value)
