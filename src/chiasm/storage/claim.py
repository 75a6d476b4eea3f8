"""Folders in which one process works at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chiasm.errors import ChiasmError


def claim(folder: Path, activity: str = "training") -> int:
    """The handle of a folder's lock, held until it is closed; raises ChiasmError where another process holds it.

    activity: what the holder does there, for the error.
    """
    lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ChiasmError(f"another process is {activity} in {folder}; choose another folder") from None
    return lock


@contextmanager
def claimed(folder: Path, activity: str = "training") -> Iterator[None]:
    """The same for the length of a block."""
    lock = claim(folder, activity)
    try:
        yield
    finally:
        os.close(lock)
