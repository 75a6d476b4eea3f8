"""MiniCPM-V's slices: an overview, and behind it slices of about the size that the encoder knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from chiasm.parts.bounds import Cells, Pixels
from chiasm.views import Size, View, Views

Pair = tuple[str, str]


class SlicePlan(NamedTuple):
    """How a picture is sliced. overview: its size as a whole. slice: the size of one; rows, columns: 0 = none."""

    overview: Size
    slice: Size
    rows: int
    columns: int


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
        self.size, self.slices, self.patch = size, slices, patch
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
        views = [View((0, 0, size.width, size.height), plan.overview)]
        if not plan.rows:
            return views
        height, width = size.height / plan.rows, size.width / plan.columns
        for row in range(plan.rows):
            for column in range(plan.columns):
                box = (column * width, row * height, (column + 1) * width, (row + 1) * height)
                views.append(View(box, plan.slice, row, column))
        return views

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
        count = min(math.ceil(size.height * size.width / (self.size * self.size)), self.slices)
        if count <= 1:
            return SlicePlan(self._fitted(size.height, size.width, enlarge=True), Size(0, 0), 0, 0)
        rows, columns = self._grid(size, count)
        height, width = (
            _rounded(side, parts) / parts for side, parts in ((size.height, rows), (size.width, columns))
        )
        return SlicePlan(
            self._fitted(size.height, size.width, enlarge=False),
            self._fitted(height, width, enlarge=True),
            rows,
            columns,
        )

    def _grid(self, size: Size, count: int) -> tuple[int, int]:
        """The grid of about `count` slices whose aspect ratio is nearest in logarithms; the first of equals."""
        ratio, nearest, best = math.log(size.width / size.height), (1, 1), float("inf")
        for slices in (count - 1, count, count + 1):
            if slices == 1 or slices > self.slices:
                continue
            for columns in range(1, slices + 1):
                rows, rest = divmod(slices, columns)
                distance = abs(ratio - math.log(columns / rows)) if not rest else best
                if distance < best:
                    nearest, best = (rows, columns), distance
        return nearest

    def _fitted(self, height: float, width: float, *, enlarge: bool) -> Size:
        """A size of whole patches and about the pixels of a square, or, if it need not be enlarged, fewer."""
        if enlarge or height * width > self.size * self.size:
            ratio = width / height
            height = int(self.size / math.sqrt(ratio))
            width = int(height * ratio)
        return Size(_rounded(height, self.patch), _rounded(width, self.patch))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 16, "patch": 8, "slices": 4}


def _rounded(side: float, unit: int) -> int:
    """The nearest multiple, at least one; halves go to the even one, as Python rounds."""
    return max(round(side / unit) * unit, unit)
