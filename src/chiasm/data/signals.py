"""Signals of modalities beside text and images, opened for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.data.sample import Signal
from chiasm.data.signal_files import REAL, REAL_NUMBERS
from chiasm.errors import DataError, reason
from chiasm.sequence import Kind, Signals, SignalSlot

if TYPE_CHECKING:
    from chiasm.data.contract import Contract


class OpenedSignal(Signal):
    """A signal that was opened already. numbers: what it is."""

    def __init__(self, signal: Signal, numbers: Float[np.ndarray, ...]):
        self.modality, self.key, self.where = signal.modality, signal.key, signal.where
        self.numbers = numbers

    def open(self) -> Float[np.ndarray, ...]:
        return self.numbers


def open_signals(
    contract: Contract, places: Sequence[tuple[int, SignalSlot]], kind: Kind
) -> dict[str, Signals]:
    """The signals of a kind, by modality. places: flat start and slot of each signal of the batch."""
    by_modality: dict[str, list[tuple[int, SignalSlot]]] = {}
    for start, slot in places:
        if slot.kind == kind:
            by_modality.setdefault(slot.signal.modality, []).append((start, slot))
    return {
        name: Signals(
            torch.stack([values_of(contract, slot.signal) for _, slot in some]),
            torch.tensor([start for start, _ in some]),
        )
        for name, some in by_modality.items()
    }


def values_of(contract: Contract, signal: Signal) -> Float[Tensor, ...]:
    """The numbers of a signal; raises DataError for another shape than its modality's, and for what is no finite
    number.
    """
    name = signal.where
    shape = contract.signals[signal.modality].shape
    try:
        numbers = np.asarray(signal.open())
    except ValueError as error:  # of rows of several lengths
        raise DataError(f"{name} is no array of numbers: {reason(error)}", "no numbers") from None
    if numbers.dtype.kind not in REAL:
        raise DataError(f"{name} is an array of {numbers.dtype}; it must be of {REAL_NUMBERS}", "no numbers")
    with np.errstate(over="ignore"):
        values = torch.from_numpy(numbers.astype(np.float32))
    if tuple(values.shape) != shape:
        raise DataError(f"{name} has shape {tuple(values.shape)}, but this model's has {shape}", "shape")
    if not bool(values.isfinite().all()):
        raise DataError(f"{name} has numbers that are not finite", "not finite")
    return values
