"""Signals of modalities beside text and images on the command line: read from files, and written to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from chiasm.data.signal_files import file_of_signal
from chiasm.errors import ChiasmError
from chiasm.terminal.files import save_next


def signal_items(options: Sequence[str]) -> list[dict[str, Any]]:
    """Signals in the form MODALITY=FILE, as content of a message; raises ChiasmError."""
    pairs = [option.partition("=") for option in options]
    for option, (modality, _, path) in zip(options, pairs, strict=True):
        if not modality or not path:
            raise ChiasmError.of("signal", f"{option!r} must be MODALITY=FILE.npy")
    return [{"signal": Path(path), "modality": modality} for modality, _, path in pairs]


def save_signal(numbers: Float[np.ndarray, ...], modality: str, folder: Path) -> Path:
    """Save as the next free MODALITY-NNN.npy of a folder."""
    return save_next(folder, modality, "npy", lambda file: file.write(file_of_signal(numbers)))
