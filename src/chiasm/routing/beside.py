"""Pictures that the language model reads beside its sequence, where each takes one position (Flamingo's way)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chiasm.routing import Routing

_media: ContextVar[Media | None] = ContextVar("media", default=None)


class CrossRouting(Routing):
    """Routing that reads the visual tokens beside the sequence, in which a picture takes one position.

    Built as `CrossRouting(language, visual_width, *, options)`; the connector gives tokens of the encoder's width.

    marker: the learnt vector at a picture's position.
    """

    marker: Float[Tensor, "1 d"]


@dataclass(frozen=True, eq=False)
class Media:
    """The pictures that are read beside the sequence, and which of them each position knows.

    tokens: visual tokens of all pictures, one picture after another.
    owners: whose each token is; pictures are counted through all documents.
    first: the first picture of the position's document.
    latest: the last picture up to the position, itself included; below `first` where none was.
    end: the last picture of the document, plus one.
    """

    tokens: Float[Tensor, "s c"]
    owners: Int[Tensor, " s"]
    first: Int[Tensor, "b t"]
    latest: Int[Tensor, "b t"]
    end: Int[Tensor, "b t"]

    @staticmethod
    def of(
        tokens: Float[Tensor, "s c"],
        lengths: Sequence[int],
        places: Int[Tensor, " p"],
        documents: Int[Tensor, "b t"],
    ) -> Media:
        """For packed documents. lengths: tokens of each picture. places: where they stand, flat, ascending."""
        counts = torch.tensor(lengths, dtype=torch.long, device=tokens.device)
        owners = torch.arange(len(lengths), device=tokens.device).repeat_interleave(counts)
        stands = torch.zeros(documents.numel(), dtype=torch.long, device=documents.device)
        stands[places] = 1
        seen = stands.cumsum(0)
        opens = torch.ones_like(documents, dtype=torch.bool)
        opens[:, 1:] = documents[:, 1:] != documents[:, :-1]
        starts = opens.flatten().nonzero()[:, 0]
        before = (seen - stands)[starts]
        behind = torch.cat([before[1:], seen[-1:]])
        own = (opens.flatten().long().cumsum(0) - 1).view_as(documents)  # which document, through all rows
        return Media(tokens, owners, before[own], seen.view_as(documents) - 1, behind[own])

    @cached_property
    def of_latest(self) -> Looks:
        """Every position looks at the latest picture of its document; before the first at none."""
        return self._looks(self.latest, self.latest, self.latest < self.first)

    @cached_property
    def of_all(self) -> Looks:
        """Every position looks at all pictures up to it; before the first, it averages all of its document."""
        before = self.latest < self.first
        last = torch.where(before, self.end - 1, self.latest)
        return self._looks(self.first, last, last < self.first, before)

    def _looks(
        self,
        first: Int[Tensor, "b t"],
        last: Int[Tensor, "b t"],
        blind: Bool[Tensor, "b t"],
        averages: Bool[Tensor, "b t"] | None = None,
    ) -> Looks:
        groups = []
        for rows, tokens in self._groups():
            owners = rearrange(self.owners[tokens], "(n s) -> n 1 s", n=rows.stop - rows.start)
            seen = (first[rows, :, None] <= owners) & (owners <= last[rows, :, None]) | blind[rows, :, None]
            groups.append((rows, tokens, None if bool(seen.all()) else seen[:, None]))
        return Looks(groups, _unless_none(blind), None if averages is None else _unless_none(averages))

    def _groups(self) -> Iterator[tuple[slice, slice]]:
        """Rows, and the tokens of their pictures: all rows at once if they have equally many, else one by one."""
        starts = torch.searchsorted(self.owners, self.first[:, 0].contiguous()).tolist()
        stops = torch.searchsorted(self.owners, self.end[:, -1].contiguous()).tolist()
        lengths = {stop - start for start, stop in zip(starts, stops, strict=True)}
        if len(lengths) == 1 and starts[1:] == stops[:-1]:
            yield slice(0, len(starts)), slice(starts[0], stops[-1])
            return
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            yield slice(row, row + 1), slice(start, stop)

    def continued(self, count: int) -> Media:
        """For `count` more positions of rows that hold one document each."""
        first, end = (each[:, :1].expand(-1, count) for each in (self.first, self.end))
        return Media(self.tokens, self.owners, first, end - 1, end)


@dataclass(frozen=True, eq=False)
class Looks:
    """Who looks at which of the tokens.

    groups: rows, the tokens of their pictures (equally many for each row), and which of them each position may look
        at (n 1 t s); None = all.
    blind: positions that look at none, though their mask is open; None = no such position.
    averages: positions that average what they look at; None = no such position.
    """

    groups: list[tuple[slice, slice, Bool[Tensor, "n 1 t s"] | None]]
    blind: Bool[Tensor, "b t"] | None
    averages: Bool[Tensor, "b t"] | None


def _unless_none(where: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t"] | None:
    return where if bool(where.any()) else None


@contextmanager
def beside(media: Media | None) -> Iterator[None]:
    """Within this context, `current_media` tells what is read beside the sequence."""
    token = _media.set(media)
    try:
        yield
    finally:
        _media.reset(token)


def current_media() -> Media | None:
    """The pictures read beside the sequence; None where there are none."""
    return _media.get()
