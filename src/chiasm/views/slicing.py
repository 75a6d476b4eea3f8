"""How many slices an image is cut into, in which grid, and how large they are (MiniCPM-V, LLaVA-UHD)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from chiasm.views import Size, View


class SlicePlan(NamedTuple):
    """How an image is sliced. overview: its size as a whole. slice: the size of one; rows, columns: 0 = none."""

    overview: Size
    slice: Size
    rows: int
    columns: int


@dataclass(frozen=True)
class Slicing:
    """As many slices as an image has squares, one more or less, in the grid that is nearest to its aspect ratio.

    size: side in pixels of such a square, of which a slice gets about the pixels. slices: most of an image.
    patch: side in pixels of what sides become multiples of. rounded: a multiple of a number near a side.
    """

    size: int
    slices: int
    patch: int
    rounded: Callable[[float, int], int]

    def plan(self, size: Size) -> SlicePlan:
        """Sizes of overview and slices, and their grid."""
        count = min(math.ceil(size.height * size.width / (self.size * self.size)), self.slices)
        if count <= 1:
            return SlicePlan(self._fitted(size.height, size.width, enlarge=True), Size(0, 0), 0, 0)
        rows, columns = self._grid(size, count)
        height, width = (
            self.rounded(side, parts) / parts for side, parts in ((size.height, rows), (size.width, columns))
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
        return Size(self.rounded(height, self.patch), self.rounded(width, self.patch))


def overview(size: Size, plan: SlicePlan) -> View:
    """The whole image."""
    return View((0, 0, size.width, size.height), plan.overview)


def slices_of(size: Size, plan: SlicePlan) -> list[View]:
    """The slices of an image, row by row."""
    height, width = size.height / max(plan.rows, 1), size.width / max(plan.columns, 1)
    return [
        View(
            (column * width, row * height, (column + 1) * width, (row + 1) * height), plan.slice, row, column
        )
        for row in range(plan.rows)
        for column in range(plan.columns)
    ]


def nearest_multiple(side: float, unit: int) -> int:
    """The nearest multiple, at least one; halves go to the even one, as Python rounds."""
    return max(round(side / unit) * unit, unit)


def lower_multiple(side: float, unit: int) -> int:
    """The largest multiple that is no more, at least one."""
    return max(math.floor(side / unit) * unit, unit)
