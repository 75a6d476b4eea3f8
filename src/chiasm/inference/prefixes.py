"""Documents that begin alike: what one request has read of them serves the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int

from chiasm.data.picture_reader import PictureReader
from chiasm.errors import ChiasmError
from chiasm.inference.reading import CodedImage, suffixes
from chiasm.inference.session import Session
from chiasm.sequence import Document, SignalSlot, Slot

if TYPE_CHECKING:
    from chiasm.model import Model

LEAST = 32  # positions that two documents must have in common; fewer are not worth a pass of their own


class SeenImage(NamedTuple):
    """An image or a signal in a document, and all that decides what is read at its positions."""

    start: int
    end: int
    kind: int
    pixels: str
    codes: str | None
    coordinates: tuple[tuple[int, int, int], ...]

    @staticmethod
    def of(slot: Slot | SignalSlot) -> SeenImage:
        if isinstance(slot, SignalSlot):
            key = f"{slot.signal.modality}/{slot.signal.key}"
            return SeenImage(slot.start, slot.start + slot.length, slot.kind, key, None, ())
        codes = slot.picture.code_key if isinstance(slot.picture, CodedImage) else None
        end, places = slot.start + slot.length, tuple(slot.coordinates)
        return SeenImage(slot.start, end, slot.kind, slot.picture.key, codes, places)


@dataclass(frozen=True)
class DocumentContent:
    """The first n positions of a document, as far as they decide what is read; equal ones are read alike.

    positions: the numbers of `_table`.
    """

    positions: bytes
    images: tuple[SeenImage, ...]

    @staticmethod
    def of(document: Document, length: int | None = None) -> DocumentContent:
        """length: how many positions; None = all."""
        columns = document.ids, document.kinds, document.opens, document.exposed
        table = np.array([column[:length] for column in columns], dtype=np.int64)
        slots: list[Slot | SignalSlot] = sorted(
            [*document.slots, *document.signals], key=lambda slot: slot.start
        )
        images = (SeenImage.of(slot) for slot in slots if slot.start < table.shape[1])
        return DocumentContent(table.tobytes(), tuple(images))

    def __len__(self) -> int:
        return self._table.shape[1]

    @cached_property
    def _table(self) -> Int[np.ndarray, "4 n"]:
        """Ids, kinds, and whether a block opens and is exposed."""
        return np.frombuffer(self.positions, dtype=np.int64).reshape(4, -1)

    @cached_property
    def _ends(self) -> Bool[np.ndarray, " m"]:
        """Before which position a beginning may end: a block opens there, and no image stands across.

        The end of the document is such a place too.
        """
        places = np.append(self._table[2] != 0, True)
        for image in self.images:
            places[image.start + 1 : image.end] = False
        return places

    def shared(self, other: DocumentContent) -> int:
        """Behind how many positions that another document begins with this one can be read on, by one at least."""
        most = min(len(self) - 1, len(other))
        differ = (self._table[:, :most] != other._table[:, :most]).any(0)
        end = int(differ.argmax()) if differ.any() else most
        for pair in zip_longest(self.images, other.images):
            if pair[0] != pair[1]:
                end = min(end, *(image.start for image in pair if image is not None))
                break
        places = np.flatnonzero(self._ends[: end + 1] & other._ends[: end + 1])
        return int(places[-1]) if len(places) else 0


class ReadDocument(NamedTuple):
    """What was read of a document, in one row."""

    content: DocumentContent
    session: Session


class Prefix(NamedTuple):
    """How much of a document is read already, and of which other; None = nothing."""

    length: int
    source: ReadDocument | None


NOTHING = Prefix(0, None)


class Prefixes:
    """What was read lately, for documents that begin alike.

    most: positions in all; those that were used last are kept. 0 = none is, and each document is read by itself, as
        where a language model's caches cannot be cut, or images stand outside the sequence.
    """

    def __init__(self, model: Model, most: int):
        shares = most > 0 and model.language.shares_prefixes and not model.routing.cross_attends
        self.model, self.most = model, most if shares else 0
        self.reused = 0  # how many positions were taken from what was read before
        self._cached: list[ReadDocument] = []  # those that were used last are the last

    def of(self, content: DocumentContent) -> Prefix:
        """The longest that is cached."""
        each = (Prefix(content.shared(cached.content), cached) for cached in self._cached)
        best = max(each, key=lambda prefix: prefix.length, default=NOTHING)
        return best if best.length >= LEAST else NOTHING

    def awaited(self, content: DocumentContent, others: Iterable[DocumentContent]) -> bool:
        """Whether one of these documents, once it is read, saves this one its beginning."""
        return any(content != other and content.shared(other) >= LEAST for other in others)

    def read(
        self, documents: Sequence[Document], contents: Sequence[DocumentContent], reader: PictureReader
    ) -> tuple[Session, list[int]]:
        """Documents in a row each, and how many positions of each were cached.

        Those that go on behind a prefix are read in a pass of their own: behind a cache, be it empty, an
        encoder-decoder reads no prompt.
        """
        prefixes = [self.of(each) for each in contents]
        pairs = zip(documents, prefixes, strict=True)
        sessions = []
        for continues, group in groupby(pairs, key=lambda pair: pair[1].source is not None):
            own, theirs = zip(*group, strict=True)
            sessions.append(
                self._continued(own, theirs, reader) if continues else Session(self.model, own, reader)
            )
        session = sessions[0]
        if len(sessions) > 1:
            session.join(*sessions[1:])
        lengths = [prefix.length for prefix in prefixes]
        self.reused += sum(lengths)
        for row, content in enumerate(contents):
            self.keep(content, session, row)
        return session, lengths

    def _continued(
        self, documents: Sequence[Document], prefixes: Sequence[Prefix], reader: PictureReader
    ) -> Session:
        """Each document behind what is cached of it."""
        rows = []
        for length, source in prefixes:
            assert source is not None
            self._cached = [each for each in self._cached if each is not source] + [source]
            rows.append(source.session.prefix(0, length))
        rows[0].join(*rows[1:])
        rows[0].read_on(suffixes(self.model, reader, documents, [length for length, _ in prefixes]))
        return rows[0]

    def keep(self, content: DocumentContent, session: Session, row: int) -> None:
        """Note what a row of a session has read, unless nearly all of it is cached, and something else besides.

        Where there is no memory for it, all that was kept is let go of.
        """
        if not LEAST <= len(content) <= self.most:
            return
        length, source = self.of(content)
        goes_on = source is not None and length == len(source.content)
        if len(content) - length < LEAST and not goes_on:
            return
        while sum(len(each.content) for each in self._cached) + len(content) > self.most:
            del self._cached[0]
        try:
            fresh = ReadDocument(content, session.prefix(row, len(content)))
        except ChiasmError:  # a cache that is longer than its sliding window gives no rows away
            return
        except torch.OutOfMemoryError:
            self._cached.clear()
            return
        others = [each for each in self._cached if content.shared(each.content) < len(each.content)]
        self._cached = [*others, fresh]
