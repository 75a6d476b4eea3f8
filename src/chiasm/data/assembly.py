"""Where the visual tokens of a batch's images come from, and which positions of the sequence they fill."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.data.contract import Contract
from chiasm.data.sample import Picture
from chiasm.errors import DataError
from chiasm.sequence import ReadImages, Slot
from chiasm.views import Size, View


@dataclass
class ViewGroup:
    """Views that pass through the encoder together: of one size, each becoming as many tokens.

    first: row of the table of tokens at which those of the first view begin.
    """

    views: list[tuple[Picture, View]]
    tokens: int
    first: int = 0

    def rows_of(self, number: int) -> Int[Tensor, " k"]:
        """The rows of the table with the tokens of a view of the group."""
        start = self.first + number * self.tokens
        return torch.arange(start, start + self.tokens)


class Assembly:
    """The images of a batch, laid out for the encoder and placed in the sequence.

    All visual tokens of the batch stand in one table: group by group, view by view, and behind them the markers of
    the views. A picture that several documents show is encoded once. `place` says which rows of the table fill the
    positions of an image; the model then only looks them up (`table[sources]`).

    Args:
        contract: how an image of a size is read.
        pictures: those of the batch; the same one may come again.
    """

    def __init__(self, contract: Contract, pictures: Iterable[Picture]):
        self._contract = contract
        self._members: dict[
            str, list[tuple[ViewGroup, int]]
        ] = {}  # of a picture: the place of each of its views
        groups: dict[tuple[Size, int], ViewGroup] = {}
        for key, picture in {each.key: each for each in pictures}.items():
            self._members[key] = []
            for view, tokens in contract.read_views(picture.size, f"image {key}"):
                group = groups.setdefault((view.size, tokens), ViewGroup([], tokens))
                self._members[key].append((group, len(group.views)))
                group.views.append((picture, view))
        self.groups = [groups[size] for size in sorted(groups)]
        self._end = 0
        for group in self.groups:
            group.first = self._end
            self._end += len(group.views) * group.tokens
        self._places: list[Int[Tensor, " s"]] = []
        self._sources: list[Int[Tensor, " s"]] = []

    def place(self, slot: Slot, start: int) -> None:
        """Let an image fill its positions, which begin at the flat position `start`."""
        self._places.append(torch.arange(start, start + slot.length))
        self._sources.append(self.rows_of(slot.picture))

    def rows_of(self, picture: Picture) -> Int[Tensor, " s"]:
        """The rows of the table with what is read of a picture, in order."""
        own = torch.cat([group.rows_of(number) for group, number in self._members[picture.key]])
        order = torch.tensor(self._contract.read_order(picture.size, f"image {picture.key}"))
        markers = self._end - 1 - order  # -1 is the first marker, which stands behind all tokens
        return torch.where(order >= 0, own[order.clamp(min=0)], markers)

    def view_of(self, picture: Picture) -> tuple[int, int]:
        """The group of a picture's only view, and its number there; raises DataError where there are several."""
        members = self._members[picture.key]
        if len(members) > 1:
            raise DataError(
                f"image {picture.key} is read in {len(members)} views, but masks are written of images that are "
                "read in one; use views of type 'whole' or 'corner'"
            )
        group, number = members[0]
        return self.groups.index(group), number

    def images(self, groups: list[Tensor], *, encoded: bool) -> ReadImages:
        """What the model reads. groups: pixels or, when `encoded`, features of each group's views."""
        return ReadImages(
            groups=groups,
            encoded=encoded,
            places=torch.cat(self._places),
            sources=torch.cat(self._sources),
            tokens=[group.tokens for group in self.groups],
            lengths=[len(rows) for rows in self._sources],
            centres=self._centres(),
            cells=self._cells(),
            words=torch.tensor(words) if (words := self._contract.view_words) else None,
        )

    def _centres(self) -> list[Float[Tensor, "n 2"]] | None:
        """Where the views of each group lie, if the views' tokens depend on it."""
        views = self._contract.views
        if views is None or not views.locates:
            return None
        return [torch.tensor([_centre(*each) for each in group.views]) for group in self.groups]

    def _cells(self) -> list[Int[Tensor, "n 2"]] | None:
        """Row and column of the views of each group, if the connector reads them."""
        connector = self._contract.connector
        if connector is None or connector.cells is None:
            return None
        return [torch.tensor([(view.row, view.column) for _, view in group.views]) for group in self.groups]


def _centre(picture: Picture, view: View) -> tuple[float, float]:
    """The shares of a picture to the left of a view's centre and above it."""
    left, top, right, bottom = view.box
    return (left + right) / 2 / picture.size.width, (top + bottom) / 2 / picture.size.height
