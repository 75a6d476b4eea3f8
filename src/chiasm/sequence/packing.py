"""Documents side by side in rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from chiasm.errors import DataError
from chiasm.sequence.batch import PADDING, PackedBatch
from chiasm.sequence.documents import COLUMNS, IGNORE, Document, SignalSlot, Slot
from chiasm.sequence.layout import AXES


class Packer:
    """Fills rows with documents, first fit, within a budget of tokens and of pictures a row."""

    def __init__(self, rows: int, length: int, pictures: int | None = None):
        self.length = length
        self.pictures = pictures
        self.rows: list[list[Document]] = [[] for _ in range(rows)]
        self._tokens = [0] * rows
        self._pictures = [0] * rows

    def offer(self, document: Document) -> bool:
        """Put the document into the first row with room; False if there is none (the batch is full)."""
        if len(document) > self.length:
            raise DataError(
                f"{document.name} has {len(document)} tokens but a row holds {self.length}; "
                "raise the stage's 'length' or shorten the sample",
                "too long",
            )
        for r, row in enumerate(self.rows):
            pictures = self._pictures[r] + len(document.slots)
            crowded = self.pictures is not None and pictures > self.pictures and row
            if self._tokens[r] + len(document) <= self.length and not crowded:
                row.append(document)
                self._tokens[r] += len(document)
                self._pictures[r] = pictures
                return True
        return False

    def pack(self) -> tuple[PackedBatch, list[tuple[int, Slot]]]:
        """The rows as a batch without pictures, and each picture's flat start with its slot."""
        return pack(self.rows, self.length)


def pack(
    rows: Sequence[Sequence[Document]], length: int | None = None
) -> tuple[PackedBatch, list[tuple[int, Slot]]]:
    """Lay documents side by side in rows of `length` positions (default: that of the longest row)."""
    length = length or max((sum(map(len, row)) for row in rows), default=0)
    shape = (len(rows), length)
    columns: dict[str, Any] = {
        "ids": np.zeros(shape, np.int64),
        "labels": np.full(shape, IGNORE, np.int64),
        "positions": np.zeros(shape, np.int64),
        "documents": np.full(shape, PADDING, np.int64),
        "kinds": np.zeros(shape, np.int64),
        "coordinates": np.zeros((*shape, AXES), np.int64),
        "opens": np.ones(shape, bool),
        "exposed": np.ones(shape, bool),
    }
    slots: list[tuple[int, Slot]] = []
    signals: list[tuple[int, SignalSlot]] = []
    for r, row in enumerate(rows):
        bounds = np.cumsum([0, *map(len, row)]).tolist()
        for d, (document, (start, end)) in enumerate(zip(row, pairwise(bounds), strict=True)):
            for name in COLUMNS:
                columns[name][r, start:end] = getattr(document, name)
            columns["positions"][r, start:end] = np.arange(end - start)
            columns["documents"][r, start:end] = d
            for slot in document.slots:
                first = start + slot.start
                if slot.coordinates:
                    columns["coordinates"][r, first : first + slot.length] = slot.coordinates
                slots.append((r * length + first, slot))
            signals += [(r * length + start + each.start, each) for each in document.signals]
    tensors: dict[str, Any] = {name: torch.from_numpy(column) for name, column in columns.items()}
    return PackedBatch(**tensors, unopened=signals), slots
