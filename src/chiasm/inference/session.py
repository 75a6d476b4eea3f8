"""Rows of documents in one key-value cache, which go on, come and leave at different times."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.data.picture_reader import PictureReader
from chiasm.inference.reading import in_rows
from chiasm.inference.requests import Extend
from chiasm.sequence import PADDING, Document, Kind
from chiasm.sequence.layout import AXES, PADDINGS, Layout, leading_padding

if TYPE_CHECKING:
    from chiasm.model import Model

NOWHERE = ((0, 0, 0),)  # the coordinates of a position that is in no image

Extension = tuple[Sequence[int], Extend]  # some rows, and what is appended to them


class Session:
    """Documents read into a key-value cache, one a row, to be continued position by position.

    A row may have holes: places of the cache that hold nothing of it, because its neighbours read more or came
    earlier. They are padding in the layout, so that a row sees what it would see alone.

    lengths: positions of each row so far, without holes.
    last: hidden states of each row's last position, where all rows were read or continued in step.
    """

    def __init__(self, model: Model, documents: Sequence[Document], reader: PictureReader | None = None):
        self.model = model
        embeddings, self.layout, _ = model.embed(in_rows(model, documents, reader))
        self.cache = model.language.new_cache()
        self.lengths = torch.tensor([len(each) for each in documents], device=model.device)
        self._check_open()
        hidden = model.language(embeddings, self.layout, self.cache)
        rows = torch.arange(len(documents), device=model.device)
        self.last: Float[Tensor, "n d"] = hidden[rows, self.lengths - 1]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def columns(self) -> int:
        """Places of a row in the cache, holes among them."""
        return self.layout.documents.shape[1]

    def step(
        self,
        embeddings: Float[Tensor, "n s d"],
        kind: Kind,
        opens: Sequence[bool],
        exposed: Sequence[bool],
        coordinates: Sequence[tuple[int, int, int]] = (),
        *,
        keep: bool = True,
    ) -> Float[Tensor, "n s d"]:
        """Append s positions to every row and return their hidden states; without `keep` they are forgotten."""
        kinds = [kind] * embeddings.shape[1]
        extension = Extend(embeddings, kinds, opens, exposed, coordinates, keep=keep)
        hidden = self.extend([(range(len(self)), extension)])[0]
        if keep:
            self.last = hidden[:, -1]
        return hidden

    def step_text(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        return self.step(self.model.language.embed(ids[:, None]), Kind.TEXT, [True], [True])[:, -1]

    def extend(self, extensions: Sequence[Extension]) -> list[Float[Tensor, "r s d"]]:
        """Append to some rows what each extension says, in one pass; the hidden states of each extension."""
        stretch = _stretch(extensions, self.lengths)
        count = stretch.layout.documents.shape[1]
        following = max(extension.following for _, extension in extensions)
        if following:
            self.model.language.expect(self.cache, self.columns + count + following)
        layout = self.layout.extended(stretch.layout, clear=self.open and stretch.open)
        hidden = self.model.language(stretch.embeddings, layout, self.cache)
        self._keep(layout, extensions, stretch)
        return _of_each(hidden, extensions)

    def read_on(self, extensions: Sequence[Extend]) -> None:
        """Append to each row what its extension says, in one pass."""
        hidden = self.extend([([row], each) for row, each in enumerate(extensions)])
        self.last = torch.cat([states[:, -1] for states in hidden])

    def forget(self, rows: Sequence[int], count: int) -> None:
        """Take the last `count` positions out of some rows."""
        if not count:
            return
        at = torch.tensor(rows, device=self.lengths.device)
        documents = self.layout.documents.clone()
        own = documents[at]
        last = (
            (own != PADDING).long().flip(1).cumsum(1).flip(1)
        )  # 1 at a row's last position, 2 before it, ...
        documents[at] = torch.where(last <= count, PADDING, own)
        self.lengths = self.lengths.index_add(0, at, torch.full_like(at, -count))
        self.layout = replace(self.layout, documents=documents, queries=None, clear=False)
        self._crop(leading_padding(documents.flip(1)))
        self._check_open()

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        at = torch.tensor(rows, device=self.lengths.device)
        self._take(at, slice(leading_padding(self.layout.documents[at]), None))

    def prefix(self, row: int, length: int) -> Session:
        """The first positions of a row as a session of their own, without holes; this one stays as it is.

        Raises ChiasmError where the cache gives no rows away.
        """
        part = copy(self)
        part.select([row])
        places = (part.layout.documents[0] != PADDING).nonzero()[:length, 0]
        part._take(torch.zeros_like(part.lengths), places)
        part.lengths = torch.full_like(part.lengths, length)
        return part

    def join(self, *others: Session) -> None:
        """Go on with the rows of other sessions behind one's own."""
        sessions = [self, *others]
        self.layout = Layout.join([each.layout for each in sessions])
        self.cache = self.model.language.join([each.cache for each in sessions])
        self.lengths = torch.cat([each.lengths for each in sessions])
        self.last = torch.cat([each.last for each in sessions])
        self._check_open()

    def _take(self, rows: Int[Tensor, " r"], columns: slice | Int[Tensor, " s"]) -> None:
        self.layout = self.layout.select(rows, columns=columns)
        self.cache = self.model.language.select(self.cache, rows, columns=columns)
        self.lengths, self.last = self.lengths[rows], self.last[rows]
        self._check_open()

    def _check_open(self) -> None:
        """Whether nothing in the cache is hidden from what comes behind it."""
        self.open = bool(((self.layout.documents != PADDING) & self.layout.exposed).all())

    def _keep(self, layout: Layout, extensions: Sequence[Extension], stretch: Stretch) -> None:
        """Note what stands in the new places; those at the end that nobody keeps are taken out again."""
        count = layout.queries or 0
        if _is_all(extensions[0][0], len(self)) and extensions[0][1].keep:
            self.layout, self.lengths = layout, self.lengths + count
            self.open = self.open and stretch.exposed
            return
        retained = torch.zeros(len(self), dtype=torch.long)
        for rows, extension in extensions:
            retained[list(rows)] = extension.embeddings.shape[1] * extension.keep
        most, least = int(retained.max()), int(retained.min())
        if most:
            self.layout = replace(layout, queries=None, clear=False)
            self.open = self.open and stretch.exposed and least == most == count
        else:
            self.model.language.forget(self.cache, count)
            return
        retained = retained.to(self.lengths.device)
        if least < count:
            documents = layout.documents.clone()
            places = torch.arange(count, device=documents.device)
            documents[:, -count:].masked_fill_(places >= retained[:, None], PADDING)
            self.layout = replace(self.layout, documents=documents)
        self.lengths = self.lengths + retained
        self._crop(count - most)

    def _crop(self, count: int) -> None:
        """Take the last places out of every row."""
        if count:
            end = self.columns - count
            self.layout = replace(
                self.layout, **{name: getattr(self.layout, name)[:, :end] for name in PADDINGS}
            )
            self.model.language.forget(self.cache, count)


@dataclass(frozen=True, eq=False)
class Stretch:
    """The next positions of all rows, padding behind those of a row that has fewer than others.

    exposed: all are. open: each sees all before it and all within the stretch.
    """

    embeddings: Float[Tensor, "b s d"]
    layout: Layout
    exposed: bool
    open: bool


def _of_all(extension: Extend, lengths: Int[Tensor, " b"]) -> Stretch:
    """What all rows append in step."""
    rows, count = extension.embeddings.shape[:2]

    def column(values: Sequence[Any]) -> Tensor:
        of_row = torch.tensor(values, device=lengths.device)
        return of_row.expand(rows, *of_row.shape)

    layout = Layout(
        torch.zeros(rows, count, dtype=torch.long, device=lengths.device),
        column(extension.opens),
        column(extension.exposed),
        kinds=column(extension.kinds),
        positions=lengths[:, None] + torch.arange(count, device=lengths.device),
        coordinates=column(extension.coordinates or NOWHERE * count),
    )
    exposed = all(extension.exposed)
    return Stretch(extension.embeddings, layout, exposed, exposed and not any(extension.opens[1:]))


def _stretch(extensions: Sequence[Extension], lengths: Int[Tensor, " b"]) -> Stretch:
    device, rows = lengths.device, len(lengths)
    if _is_all(extensions[0][0], rows):
        return _of_all(extensions[0][1], lengths)
    sizes = [extension.embeddings.shape[1] for _, extension in extensions]
    count = max(sizes)
    real = torch.zeros(rows, count, dtype=torch.bool)
    kinds = torch.zeros(rows, count, dtype=torch.long)
    opens, exposed = torch.ones(2, rows, count, dtype=torch.bool)
    coordinates = torch.zeros(rows, count, AXES, dtype=torch.long)
    for (own, extension), size in zip(extensions, sizes, strict=True):
        at = list(own)
        real[at, :size] = True
        kinds[at, :size] = torch.tensor([int(kind) for kind in extension.kinds])
        opens[at, :size] = torch.tensor(extension.opens)
        exposed[at, :size] = torch.tensor(extension.exposed)
        if extension.coordinates:
            coordinates[at, :size] = torch.tensor(extension.coordinates)
    whole = bool(real.all())
    positions = lengths[:, None] + torch.arange(count, device=device)
    real = real.to(device)
    layout = Layout(
        torch.where(real, 0, PADDING),
        opens.to(device),
        exposed.to(device),
        kinds=kinds.to(device),
        positions=positions if whole else torch.where(real, positions, 0),
        coordinates=coordinates.to(device),
    )
    all_exposed = bool(exposed.all())
    blocks = any(any(extension.opens[1:]) for _, extension in extensions)
    return Stretch(
        _embeddings(extensions, rows, count), layout, all_exposed, whole and all_exposed and not blocks
    )


def _embeddings(extensions: Sequence[Extension], rows: int, count: int) -> Float[Tensor, "b s d"]:
    first = extensions[0][1].embeddings
    embeddings = first.new_zeros(rows, count, first.shape[2])
    for own, extension in extensions:
        embeddings[_index(own, first), : extension.embeddings.shape[1]] = extension.embeddings
    return embeddings


def _of_each(hidden: Float[Tensor, "b s d"], extensions: Sequence[Extension]) -> list[Float[Tensor, "r s d"]]:
    if _is_all(extensions[0][0], len(hidden)):
        return [hidden]
    return [hidden[_index(rows, hidden), : extension.embeddings.shape[1]] for rows, extension in extensions]


def _index(rows: Sequence[int], like: Tensor) -> Int[Tensor, " r"]:
    return torch.tensor(list(rows), device=like.device)


def _is_all(own: Sequence[int], rows: int) -> bool:
    return len(own) == rows and list(own) == list(range(rows))
