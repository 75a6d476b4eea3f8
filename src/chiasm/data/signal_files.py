"""Signals of modalities beside text and images as files of numbers (.npy)."""

from __future__ import annotations

import hashlib
import io
import math
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

from chiasm.data.files import MOST_BYTES, open_regular
from chiasm.data.sample import Signal
from chiasm.errors import DataError

FORM = "a file of numbers as numpy.save writes it (.npy)"
REAL = "fiu"  # kinds of numpy's types of which signals are: floating point, and whole numbers with and without sign
REAL_NUMBERS = "real numbers (of a type such as float32 or int16; truth values as 0 and 1)"


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

    What was read for the key is held until it is opened, so that both take one reading.

    where: what errors call it.
    """

    _key: str | None = None
    _unopened: SignalOfNumbers | None = None

    def __init__(self, modality: str, path: Path, where: str):
        self.modality, self.path, self.where = modality, path, where

    @property
    def key(self) -> str:  # type: ignore[override]
        if self._key is None:
            signal = self._unopened = self._read()
            self._key = signal.key
        return self._key

    def open(self) -> Float[np.ndarray, ...]:
        signal, self._unopened = self._unopened or self._read(), None
        self._key = signal.key
        return signal.open()

    def _read(self) -> SignalOfNumbers:
        with open_regular(self.path, self.where, "signal") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MOST_BYTES:
                raise DataError(f"{self.where} has {size:,} bytes, more than {MOST_BYTES:,}", "signal")
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
    if kind.kind not in REAL:
        raise DataError(f"{where} holds {kind.name}; a signal is of {REAL_NUMBERS}", "signal")
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
