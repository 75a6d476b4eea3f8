"""Documents of text, pictures read and pictures written, packed into rows under one attention rule.

The rule, and what else the language model must know of positions, is `chiasm.sequence.layout.Layout`.
"""

from chiasm.sequence.batch import (
    PADDING,
    PackedBatch,
    ReadImages,
    Signals,
    Written,
    WrittenImages,
    WrittenMasks,
    fill,
    fill_from,
)
from chiasm.sequence.documents import IGNORE, Document, Kind, SignalSlot, Slot
from chiasm.sequence.packing import Packer, pack

__all__ = [
    "IGNORE",
    "PADDING",
    "Document",
    "Kind",
    "PackedBatch",
    "Packer",
    "ReadImages",
    "SignalSlot",
    "Signals",
    "Slot",
    "Written",
    "WrittenImages",
    "WrittenMasks",
    "fill",
    "fill_from",
    "pack",
]
