"""Signals of modalities beside text and images on the command line: read from files, and written to them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from chiasm.data.signal_files import file_of_signal
from chiasm.errors import ChiasmError


def items(given: Sequence[str]) -> list[dict[str, Any]]:
    """Signals given as MODALITY=FILE, as content of a message; raises ChiasmError."""
    pairs = [each.partition("=") for each in given]
    for each, (modality, _, path) in zip(given, pairs, strict=True):
        if not modality or not path:
            raise ChiasmError.of("signal", f"{each!r} must be MODALITY=FILE.npy")
    return [{"signal": Path(path), "modality": modality} for modality, _, path in pairs]


def messages_with(signals: Sequence[str], images: Sequence[Path], prompt: str) -> list[dict[str, Any]]:
    """One message: signals, images, and words."""
    shown = [{"image": path} for path in images]
    return [{"role": "user", "content": [*items(signals), *shown, {"text": prompt}]}]


def save_signal(numbers: Float[np.ndarray, ...], modality: str, folder: Path) -> Path:
    """Save as the next free MODALITY-NNN.npy of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = folder / f"{modality}-{number:03}.npy"
        try:
            with path.open("xb") as file:
                file.write(file_of_signal(numbers))
            return path
        except FileExistsError:
            continue
    raise AssertionError("unreachable")
