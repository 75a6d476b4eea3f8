"""Signals of modalities beside text and images as files of numbers (.npy)."""

from __future__ import annotations

import hashlib
import io
import math
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from chiasm.data.files import MOST_BYTES, open_regular
from chiasm.data.sample import Signal
from chiasm.errors import DataError

FORM = "a file of numbers as numpy.save writes it (.npy)"


class SignalOfNumbers(Signal):
    """A signal whose numbers are there.

    where: what errors call it.
    """

    def __init__(self, modality: str, numbers: Float[np.ndarray, ...], where: str):
        self.modality, self.where = modality, where
        with np.errstate(over="ignore"):  # too large a number is infinite, which is refused where it is used
            self._numbers = np.array(numbers, dtype=np.float32)
        self.key = hashlib.sha256(f"{self._numbers.shape}".encode() + self._numbers.tobytes()).hexdigest()[
            :32
        ]

    def open(self) -> Float[np.ndarray, ...]:
        return self._numbers


class SignalFile(Signal):
    """A signal in a .npy file, which is read when it is needed; raises DataError then.

    where: what errors call it.
    """

    def __init__(self, modality: str, path: Path, where: str):
        self.modality, self.path, self.where = modality, path, where

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        return self._read().key

    def open(self) -> Float[np.ndarray, ...]:
        return self._read().open()

    def _read(self) -> SignalOfNumbers:
        with open_regular(self.path, self.where, "signal") as file:
            return signal_of_bytes(self.modality, file.read(MOST_BYTES), self.where)


def signal_of_bytes(modality: str, data: bytes, where: str) -> SignalOfNumbers:
    """The signal in the bytes of a .npy file; raises DataError for what is none, or holds other than numbers.

    Nothing in it is executed, and nothing is laid out that is not there.
    """
    file = io.BytesIO(data)
    try:
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, by_columns, kind = headers[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise DataError(f"{where} is not {FORM}", "signal") from None
    if kind.kind not in "fiu":
        raise DataError(f"{where} holds {kind.name}; a signal is of numbers", "signal")
    if min(shape, default=1) <= 0:
        raise DataError(f"{where} has the shape {shape}: it is empty", "signal")
    if len(data) - file.tell() != math.prod(shape) * kind.itemsize:
        raise DataError(f"{where} is cut off, or has more than its header says", "signal")
    numbers = np.frombuffer(data, kind, offset=file.tell()).reshape(shape, order="F" if by_columns else "C")
    return SignalOfNumbers(modality, numbers, where)


def file_of_signal(numbers: Float[np.ndarray, ...]) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, numbers, allow_pickle=False)
    return file.getvalue()
