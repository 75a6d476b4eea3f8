"""Documents of text, images and signals read and written, and masks written, before they are packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from chiasm.errors import TOO_LONG, DataError

if TYPE_CHECKING:
    from chiasm.data.sample import Masks, Picture, Signal

IGNORE = -100  # the label of a position without a text loss


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

    def moved(self, count: int) -> Slot:
        """The slot in a document that lacks the first `count` positions; a caption among them is lost."""
        start = self.start - count
        return replace(self, start=start, caption=self.caption if self.caption[0] <= start else (0, 0))


@dataclass(frozen=True)
class SignalSlot:
    """The positions of one signal of a modality beside text and images: [start, start + length)."""

    signal: Signal
    kind: Kind
    start: int
    length: int


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
    signals: list[SignalSlot] = field(default_factory=list)

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

    def add_signal(self, signal: Signal, kind: Kind, placeholder: int, length: int) -> None:
        """Append the positions of a signal, causal."""
        self.signals.append(SignalSlot(signal, kind, len(self), length))
        for _ in range(length):
            self._add(placeholder, kind, True, True)

    def join(self, end: int) -> None:
        """Make one block of the positions before `end`, in which all see each other."""
        for place in range(1, end):
            self.opens[place] = False

    def behind(self, start: int) -> Document:
        """What stands from a position on, as a document of its own; no picture or signal may stand across it."""
        columns = {column: getattr(self, column)[start:] for column in COLUMNS}
        slots = [slot.moved(start) for slot in self.slots if slot.start >= start]
        signals = [replace(each, start=each.start - start) for each in self.signals if each.start >= start]
        return Document(self.name, slots=slots, signals=signals, **columns)

    def check(self, context: int) -> Document:
        """Raise DataError, naming the sample, if the columns disagree or the document is too long."""
        if len(self) > context:
            raise DataError(
                f"{self.name} has {len(self)} tokens but the context is {context}; shorten it or raise the context",
                TOO_LONG,
            )
        lengths = {column: len(getattr(self, column)) for column in COLUMNS}
        if len(set(lengths.values())) != 1:
            raise DataError(f"{self.name}: columns of different lengths {lengths}")
        marked = sum(kind != Kind.TEXT for kind in self.kinds)
        filled = sum(slot.length - slot.words for slot in self.slots) + sum(s.length for s in self.signals)
        if marked != filled:
            raise DataError(
                f"{self.name} has {marked} positions of images and signals, but those that it has fill {filled}"
            )
        return self

    def _add(self, token: int, kind: Kind, opens: bool, exposed: bool) -> None:
        self.ids.append(token)
        self.labels.append(IGNORE)
        self.kinds.append(int(kind))
        self.opens.append(opens)
        self.exposed.append(exposed)
