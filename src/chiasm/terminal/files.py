"""Files that commands write into a folder."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import BinaryIO


def save_next(folder: Path, stem: str, suffix: str, write: Callable[[BinaryIO], object]) -> Path:
    """Write the next free STEM-NNN.SUFFIX of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = folder / f"{stem}-{number:03}.{suffix}"
        try:
            with path.open("xb") as file:
                write(file)
            return path
        except FileExistsError:
            continue
    raise AssertionError("unreachable")
