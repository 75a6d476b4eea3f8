"""UReader's and DocOwl-1.5's crops: the grid of a list that is nearest in form, and the whole picture first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chiasm.errors import RecipeError
from chiasm.parts.bounds import Cells, Pixels
from chiasm.views import Size, View, Views

Grid = tuple[Cells, Cells]
# Rows and columns in the originals' orders, of which the first of equals is taken: UReader's, and DocOwl-1.5's.
TWENTY = [
    *((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (2, 2), (4, 1), (1, 5), (5, 1), (1, 6), (2, 3), (3, 2)),
    *(
        (6, 1),
        (1, 7),
        (7, 1),
        (1, 8),
        (2, 4),
        (4, 2),
        (8, 1),
        (1, 9),
        (3, 3),
        (9, 1),
        (1, 10),
        (2, 5),
        (5, 2),
    ),
    *((10, 1), (1, 11), (11, 1), (2, 6), (3, 4), (4, 3), (6, 2), (2, 7), (7, 2), (3, 5), (5, 3), (2, 8)),
    *((4, 4), (8, 2), (2, 9), (3, 6), (6, 3), (9, 2), (2, 10), (4, 5), (5, 4), (10, 2)),
]
NINE = [
    *((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (1, 4), (4, 1), (1, 5), (5, 1), (1, 6), (6, 1), (2, 3)),
    *((3, 2), (1, 7), (7, 1), (4, 2), (2, 4), (1, 8), (8, 1), (3, 3), (1, 9), (9, 1)),
]
FOUR = NINE[:8]
FORM = np.float32(100)  # how much more the form counts than the size
EPSILON = np.float32(1e-5)


class Anchors(Views, name="anchors"):
    """Crops of the grid that is nearest to the picture in form and then in size (UReader, arXiv 2310.05126).

    The picture is stretched to the grid and cut row by row; the whole picture comes first, also of a picture of one
    crop, in a row and a column behind those of all grids. DocOwl-1.5 (arXiv 2403.12895) has crops of 448 pixels, at
    most nine, and names each in words before it.

    Args:
        size: side of a crop in pixels.
        grids: rows and columns of each grid to choose from; of equals the first is taken.
        overview: the whole picture comes first.
        named: before each crop stand the words <crop_img_row0_col0>, before the whole picture <global_img>.
    """

    def __init__(
        self, *, size: Pixels = 224, grids: list[Grid] = TWENTY, overview: bool = True, named: bool = False
    ):
        if not grids:
            raise RecipeError("views 'anchors' need a grid at least")
        self.size, self.grids, self.overview = size, [(rows, columns) for rows, columns in grids], overview
        self._rows, self._columns = (max(each) for each in zip(*self.grids, strict=True))
        self._side = max(self._rows, self._columns)
        self.words = self._names() if named else ()
        sides = np.array(self.grids, np.int64) * size
        self._heights, self._widths = sides[:, 0], sides[:, 1]

    def split(self, size: Size) -> list[View]:
        rows, columns = self.grids[self.nearest(size)]
        crop, height, width = Size(self.size, self.size), size.height / rows, size.width / columns
        crops = [
            View((column * width, row * height, (column + 1) * width, (row + 1) * height), crop, row, column)
            for row in range(rows)
            for column in range(columns)
        ]
        whole = View((0, 0, size.width, size.height), crop, self._side, self._side)
        return [whole, *crops] if self.overview else crops

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        counts = [rows * columns for rows, columns in grids]
        if not self.words:
            return range(sum(counts))
        order, start = [], 0
        for view, count in zip(self.split(size), counts, strict=True):
            order.append(-1 if view.row == self._side else -2 - (view.row * self._columns + view.column))
            order += range(start, start + count)
            start += count
        return order

    def nearest(self, size: Size) -> int:
        """Which grid a picture is cut by: the largest overlap of forms, then of sizes.

        In the numbers of the originals: whole pixels, and quotients of single precision.
        """
        heights, widths = self._heights, self._widths
        # The picture at the width of each grid, its height cut to whole pixels.
        scaled = (np.float32(size.height / size.width) * widths.astype(np.float32)).astype(np.int64)
        form = _overlap(heights, widths, scaled, widths)
        own = _overlap(heights, widths, np.int64(size.height), np.int64(size.width))
        return int(np.argmax(form * FORM + own))

    def _names(self) -> tuple[str, ...]:
        cells = ((row, column) for row in range(self._rows) for column in range(self._columns))
        return ("<global_img>", *(f"<crop_img_row{row}_col{column}>" for row, column in cells))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 16, "grids": [[1, 1], [1, 2], [2, 1]]}


def _overlap(heights: Any, widths: Any, other_heights: Any, other_widths: Any) -> Any:
    """Intersection over union of boxes with a corner in common."""
    shared = np.minimum(heights, other_heights) * np.minimum(widths, other_widths)
    union = heights * widths + other_heights * other_widths - shared
    return shared.astype(np.float32) / (union.astype(np.float32) + EPSILON)
