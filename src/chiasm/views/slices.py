"""MiniCPM-V's slices: an overview, and behind it slices of about the size that the encoder knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chiasm.parts.bounds import Cells, Pixels
from chiasm.views import Size, View, Views
from chiasm.views.slicing import SlicePlan, Slicing, nearest_multiple, overview, slices_of

Pair = tuple[str, str]


class Slices(Views, name="slices"):
    """MiniCPM-V's adaptive slices, whose aspect ratios are near the picture's own (arXiv 2408.01800).

    A picture of more pixels than a square of `size` is cut into as many slices as it has such squares, one more or
    less, in the grid that is nearest to its aspect ratio; each slice keeps its aspect ratio and is given about as
    many pixels as such a square. The overview, likewise, comes first. Words of the language model stand round them.

    Args:
        size: side of a square of as many pixels as a slice gets.
        slices: most slices of a picture; 1 = the overview alone.
        patch: side in pixels of what the sides become multiples of.
        overview_words: what stands before and behind the visual tokens of the overview.
        slice_words: the same of each slice; MiniCPM-V 2.6 has <slice> and </slice>.
        slices_words: the same of all slices together; nothing in MiniCPM-V 2.6.
        row_words: between the rows of slices.
    """

    def __init__(
        self,
        *,
        size: Pixels = 448,
        slices: Cells = 9,
        patch: Pixels = 14,
        overview_words: Pair = ("<image>", "</image>"),
        slice_words: Pair = ("<image>", "</image>"),
        slices_words: Pair = ("<slice>", "</slice>"),
        row_words: str = "\n",
    ):
        self.slicing = Slicing(size, slices, patch, nearest_multiple)
        begin, end = overview_words
        first, last = slice_words
        # Each stretch between visual tokens is one text, so that it is tokenized as a whole.
        self.words = (
            begin,
            end,
            end + slices_words[0] + first,
            last + first,
            last + row_words + first,
            last + slices_words[1],
        )

    def split(self, size: Size) -> list[View]:
        plan = self.plan(size)
        return [overview(size, plan), *slices_of(size, plan)]

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        begin, alone, to_slices, to_slice, to_row, end = (-1 - i for i in range(len(self.words)))
        columns = self.plan(size).columns
        order, start = [begin], 0
        for view, (rows, across) in enumerate(grids):
            if view:
                first_of_row = (view - 1) % columns == 0
                order.append(to_slices if view == 1 else to_row if first_of_row else to_slice)
            order += range(start, start + rows * across)
            start += rows * across
        return [*order, end if len(grids) > 1 else alone]

    def plan(self, size: Size) -> SlicePlan:
        """Sizes of overview and slices, and their grid."""
        return self.slicing.plan(size)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 16, "patch": 8, "slices": 4}
