"""Documents of text, pictures read and pictures written, packed into rows under one attention rule.

The rule, and what else the language model must know of positions, is `chiasm.sequence.layout.Layout`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chiasm.errors import DataError
from chiasm.sequence.layout import AXES, Layout

if TYPE_CHECKING:
    from chiasm.data.sample import Masks, Picture

IGNORE = -100  # the label of a position without a text loss
PADDING = -1  # the document of a position that holds nothing


class Kind(IntEnum):
    """What stands at a position."""

    TEXT = 0
    READ = 1  # a token of a picture that the model looks at
    WRITTEN = 2  # a token of a picture that the model makes


@dataclass(frozen=True)
class Slot:
    """The positions of one picture in a document: [start, start + length).

    coordinates: of each position within the picture (see `chiasm.sequence.layout.Layout`); none = zeros.
    words: how many of the positions hold a word of the views, which is text.
    masks: which masks of the picture are written here, in place of the picture.
    question: how many positions stand between that picture and here.
    caption: the words for which the image is drawn: how many positions before here they begin, and their number.
    source: the image that this one comes of by a change.
    """

    picture: Picture
    kind: Kind
    start: int
    length: int
    coordinates: Sequence[tuple[int, int, int]] = ()
    words: int = 0
    masks: Masks | None = None
    question: int = 0
    caption: tuple[int, int] = (0, 0)
    source: Picture | None = None


COLUMNS = ("ids", "labels", "kinds", "opens", "exposed")  # of a document


@dataclass
class Document:
    """One document as columns of equal length, before it is packed. `labels` are already shifted."""

    name: str
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    opens: list[bool] = field(default_factory=list)
    exposed: list[bool] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add_text(self, ids: Sequence[int], *, learn: bool, exposed: bool = True) -> None:
        """Append text, causal; with `learn`, each of its tokens is predicted by the position before it.

        exposed: what stands behind it sees it.
        """
        for token in ids:
            if learn and self.labels:
                self.labels[-1] = token
            self._add(token, Kind.TEXT, True, exposed)

    def add_picture(
        self,
        picture: Picture,
        kind: Kind,
        placeholder: int,
        opens: Sequence[bool],
        exposed: Sequence[bool],
        coordinates: Sequence[tuple[int, int, int]] = (),
        words: Mapping[int, int] | None = None,
        caption: tuple[int, int] = (0, 0),
        source: Picture | None = None,
    ) -> None:
        """Append the positions of a picture.

        opens, exposed: the attention rule at each of them. coordinates, caption, source: see `Slot`. words: the id
        of each word of the views by its place among the positions.
        """
        words = words or {}
        more: dict[str, Any] = {"caption": caption, "source": source}
        self.slots.append(Slot(picture, kind, len(self), len(opens), coordinates, len(words), **more))
        for place, (first, shown) in enumerate(zip(opens, exposed, strict=True)):
            if place in words:
                self._add(words[place], Kind.TEXT, first, shown)
            else:
                self._add(placeholder, kind, first, shown)

    def add_masks(self, masks: Masks, placeholder: int, length: int) -> None:
        """Append the positions of masks of the last picture, causal."""
        shown = self.slots[-1]
        question = len(self) - shown.start - shown.length
        place = Slot(shown.picture, Kind.WRITTEN, len(self), length, masks=masks, question=question)
        self.slots.append(place)
        for _ in range(length):
            self._add(placeholder, Kind.WRITTEN, True, True)

    def join(self, end: int) -> None:
        """Make one block of the positions before `end`, in which all see each other."""
        for place in range(1, end):
            self.opens[place] = False

    def behind(self, start: int) -> Document:
        """What stands from a position on, as a document of its own; no picture may stand across it."""
        columns = {column: getattr(self, column)[start:] for column in COLUMNS}
        slots = [replace(slot, start=slot.start - start) for slot in self.slots if slot.start >= start]
        return Document(self.name, slots=slots, **columns)

    def check(self, context: int) -> Document:
        """Raise DataError, naming the sample, if the columns disagree or the document is too long."""
        if len(self) > context:
            raise DataError(
                f"{self.name} has {len(self)} tokens but the context is {context}; shorten it or raise the context",
                "too long",
            )
        lengths = {column: len(getattr(self, column)) for column in COLUMNS}
        if len(set(lengths.values())) != 1:
            raise DataError(f"{self.name}: columns of different lengths {lengths}")
        marked = sum(kind != Kind.TEXT for kind in self.kinds)
        filled = sum(slot.length - slot.words for slot in self.slots)
        if marked != filled:
            raise DataError(f"{self.name} has {marked} image positions but its pictures fill {filled}")
        return self

    def _add(self, token: int, kind: Kind, opens: bool, exposed: bool) -> None:
        self.ids.append(token)
        self.labels.append(IGNORE)
        self.kinds.append(int(kind))
        self.opens.append(opens)
        self.exposed.append(exposed)


@dataclass
class ReadImages:
    """Pictures to look at.

    groups: pixels (n 3 h w) or, when `encoded`, features (n gh gw c), one tensor for each size.
    places: flat positions (row * t + column) that visual tokens fill.
    sources: for each place, the row in the table of all visual tokens, group by group, view by view, and behind
        them the markers of the views, or their words.
    tokens: how many visual tokens a view of each group was promised to make.
    lengths: visual tokens of each picture; where they are cross-attended, `places` has one position for
        each picture, and `sources` all of its tokens.
    centres: of each group, where its views lie (n 2); see `chiasm.views.Views.locate`. None: it does not matter.
    cells: of each group, the rows and columns of its views (n 2); see `chiasm.connectors.Connector`. None: it does
        not matter.
    words: ids of the views' words, of the language model; None: they have none.
    """

    groups: list[Tensor]
    encoded: bool
    places: Int[Tensor, " s"]
    sources: Int[Tensor, " s"]
    tokens: list[int]
    lengths: list[int] = field(default_factory=list)
    centres: list[Float[Tensor, "n 2"]] | None = None
    cells: list[Int[Tensor, "n 2"]] | None = None
    words: Int[Tensor, " w"] | None = None


@dataclass
class WrittenImages:
    """Pictures to make.

    targets: codes (n gh gw) or vectors (n gh gw c) when `encoded`, else pixels (n 3 h w).
    starts: flat position of each picture's first place.
    words: flat positions of the words for which each picture is drawn, -1 behind the last; None = for none.
    sources: pixels of the image that each comes of by a change (n 3 h w); None = they come of none.
    """

    targets: Tensor
    encoded: bool
    starts: Int[Tensor, " n"]
    words: Int[Tensor, "n k"] | None = None
    sources: Float[Tensor, "n 3 h w"] | None = None

    def orphans(self, positions: Int[Tensor, "b t"]) -> Bool[Tensor, " n"]:
        """Which images have nothing before them in their document; positions: of the batch."""
        return positions.flatten()[self.starts] == 0


@dataclass
class WrittenMasks:
    """Masks to write.

    targets: of each question, its masks (m h w) as large as the view of its image.
    starts: flat position of each question's first mask position.
    questions: how many positions before that one the question's words begin.
    images: of each, the group of `ReadImages` in which its image is, and its number there.
    """

    targets: list[Bool[Tensor, "m h w"]]
    starts: list[int]
    questions: list[int]
    images: list[tuple[int, int]]


Moved = TypeVar("Moved")


@dataclass
class PackedBatch:
    """b rows of t positions; see `chiasm.sequence.layout.Layout` for its columns."""

    ids: Int[Tensor, "b t"]  # image positions hold a placeholder
    labels: Int[Tensor, "b t"]  # already shifted, IGNORE = no text loss
    positions: Int[Tensor, "b t"]  # restart at every document
    documents: Int[Tensor, "b t"]  # PADDING = nothing stands here
    kinds: Int[Tensor, "b t"]
    coordinates: Int[Tensor, "b t 3"]
    opens: Bool[Tensor, "b t"]
    exposed: Bool[Tensor, "b t"]
    read: ReadImages | None = None
    written: WrittenImages | None = None
    shown: WrittenImages | None = None  # pictures to look at by their codes, in models without an encoder
    masks: WrittenMasks | None = None

    @property
    def layout(self) -> Layout:
        return Layout(
            self.documents,
            self.opens,
            self.exposed,
            kinds=self.kinds,
            positions=self.positions,
            coordinates=self.coordinates,
        )

    @property
    def real(self) -> int:
        """Positions that are not padding."""
        return int((self.documents != PADDING).sum())

    @property
    def samples(self) -> int:
        """Documents."""
        return sum(len(row[row != PADDING].unique()) for row in self.documents)

    def to(self, device: torch.device | str) -> PackedBatch:
        return _moved(self, device)


def _moved(value: Moved, device: torch.device | str) -> Moved:
    changed: dict[str, Any] = {}
    for each in fields(value):  # type: ignore[arg-type]
        item = getattr(value, each.name)
        if isinstance(item, Tensor):
            changed[each.name] = item.to(device, non_blocking=True)
        elif isinstance(item, list) and item and isinstance(item[0], Tensor):
            changed[each.name] = [tensor.to(device, non_blocking=True) for tensor in item]
        elif isinstance(item, ReadImages | WrittenImages | WrittenMasks):
            changed[each.name] = _moved(item, device)
    return replace(value, **changed)  # type: ignore[type-var]


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
    tensors: dict[str, Any] = {name: torch.from_numpy(column) for name, column in columns.items()}
    return PackedBatch(**tensors), slots


def fill(
    embeddings: Float[Tensor, "b t d"], places: Int[Tensor, " s"], values: Float[Tensor, "s d"]
) -> Float[Tensor, "b t d"]:
    """The embeddings with `values` at the flat positions `places`."""
    flat = embeddings.flatten(0, 1).index_copy(0, places, values.to(embeddings.dtype))
    return flat.view_as(embeddings)
