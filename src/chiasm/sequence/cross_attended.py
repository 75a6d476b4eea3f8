"""Images that the language model reads outside its sequence, where each takes one position (Flamingo's way)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CrossAttended:
    """Images outside the sequence, and which of them each position may attend to.

    tokens: visual tokens of all images, one image after another.
    owners: whose each token is; images are counted through all documents.
    first: the first image of the position's document.
    latest: the last image up to the position, itself included; below `first` where none was.
    end: the last image of the document, plus one.
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
    ) -> CrossAttended:
        """For packed documents. lengths: tokens of each image. places: where they stand, flat, ascending."""
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
        return CrossAttended(tokens, owners, before[own], seen.view_as(documents) - 1, behind[own])

    @cached_property
    def of_latest(self) -> Visible:
        """Every position sees the latest image of its document; before the first, none."""
        return self._visible(self.latest, self.latest, self.latest < self.first)

    @cached_property
    def of_all(self) -> Visible:
        """Every position sees all images up to it; before the first, it averages all of its document."""
        before = self.latest < self.first
        last = torch.where(before, self.end - 1, self.latest)
        return self._visible(self.first, last, last < self.first, before)

    def _visible(
        self,
        first: Int[Tensor, "b t"],
        last: Int[Tensor, "b t"],
        blind: Bool[Tensor, "b t"],
        averages: Bool[Tensor, "b t"] | None = None,
    ) -> Visible:
        groups = []
        for rows, tokens in self._groups():
            owners = rearrange(self.owners[tokens], "(n s) -> n 1 s", n=rows.stop - rows.start)
            seen = (first[rows, :, None] <= owners) & (owners <= last[rows, :, None]) | blind[rows, :, None]
            groups.append((rows, tokens, None if bool(seen.all()) else seen[:, None]))
        return Visible(groups, _unless_none(blind), None if averages is None else _unless_none(averages))

    def _groups(self) -> Iterator[tuple[slice, slice]]:
        """Rows, and the tokens of their images: all rows at once if they have equally many, else one by one."""
        starts, stops = self._bounds()
        lengths = {stop - start for start, stop in zip(starts, stops, strict=True)}
        if len(lengths) == 1 and starts[1:] == stops[:-1]:
            yield slice(0, len(starts)), slice(starts[0], stops[-1])
            return
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            yield slice(row, row + 1), slice(start, stop)

    def continued(self, count: int) -> CrossAttended:
        """For `count` more positions of rows that hold one document each."""
        first, end = (each[:, :1].expand(-1, count) for each in (self.first, self.end))
        return CrossAttended(self.tokens, self.owners, first, end - 1, end)

    @staticmethod
    def join(images: Sequence[CrossAttended | None], rows: Sequence[int]) -> CrossAttended | None:
        """The images of all rows, each of one document, which are to be continued; None where no row has any.

        rows: how many each is of.
        """
        some = [each for each in images if each is not None]
        if not some:
            return None
        none = some[0].first.new_zeros
        each_or_none = [
            CrossAttended(some[0].tokens[:0], some[0].owners[:0], none(n, 1), none(n, 1) - 1, none(n, 1))
            if each is None
            else each.continued(1)
            for each, n in zip(images, rows, strict=True)
        ]
        before = torch.tensor([0, *(int(each.end.max()) for each in each_or_none)]).cumsum(0).tolist()

        def joined(column: str) -> Int[Tensor, "m ..."]:
            return torch.cat([getattr(each, column) + n for each, n in zip(each_or_none, before)])

        tokens = torch.cat([each.tokens for each in each_or_none])
        return CrossAttended(tokens, *(joined(column) for column in ("owners", "first", "latest", "end")))

    def select(self, rows: Int[Tensor, " r"]) -> CrossAttended | None:
        """The images of some rows, each of one document, which are to be continued."""
        starts, stops = self._bounds()
        chosen = [self._of_row(row, slice(starts[row], stops[row])) for row in rows.tolist()]
        return CrossAttended.join(chosen, [1] * len(rows))

    def _of_row(self, row: int, own: slice) -> CrossAttended:
        """own: the tokens of its images."""
        before = self.first[row, 0]
        first, latest, end = (each[row : row + 1] - before for each in (self.first, self.latest, self.end))
        return CrossAttended(self.tokens[own], self.owners[own] - before, first, latest, end)

    def _bounds(self) -> tuple[list[int], list[int]]:
        """For each row, where the tokens of its images begin and end."""
        starts = torch.searchsorted(self.owners, self.first[:, 0].contiguous())
        return starts.tolist(), torch.searchsorted(self.owners, self.end[:, -1].contiguous()).tolist()


@dataclass(frozen=True, eq=False)
class Visible:
    """Which position sees which of the tokens.

    groups: rows, the tokens of their images (equally many for each row), and which of them each position sees
        (n 1 t s); None = all.
    blind: positions that see none, though their mask is open; None = no such position.
    averages: positions that average what they see; None = no such position.
    """

    groups: list[tuple[slice, slice, Bool[Tensor, "n 1 t s"] | None]]
    blind: Bool[Tensor, "b t"] | None
    averages: Bool[Tensor, "b t"] | None


def _unless_none(where: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t"] | None:
    return where if bool(where.any()) else None
