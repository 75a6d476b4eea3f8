"""SEED-X's tiles: those of a canvas of the nearest shape, and behind them the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.parts.bounds import Cells, Pixels
from chiasm.views import MarkedViews, Size, View
from chiasm.views.any_resolution import merit

GRIDS = [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3), (4, 1), (1, 4), (2, 2)]
TILE_BEGIN, TILE_END, WHOLE_BEGIN, WHOLE_END = (
    -1,
    -2,
    -3,
    -4,
)  # the indices of the markers, as `Views.arrange` counts


class SeedXTiles(MarkedViews, name="seed_x_tiles"):
    """SEED-X's any-resolution tiles (arXiv 2404.14396).

    The image is stretched to the canvas that shows most of it and wastes least, or to the one of the nearest aspect
    ratio where that is smaller. The tiles come first, row by row, the whole image last; each view stands between
    two learnt markers, of which tiles have others than the whole image.

    Args:
        size: side of a tile in pixels.
        grids: rows and columns of each canvas to choose from; of two that are equally good the first is taken.
        located: add to the tokens of each view a learnt linear map of where its centre lies in the image.
    """

    def __init__(
        self,
        width: int,
        *,
        size: Pixels = 448,
        grids: list[tuple[Cells, Cells]] = GRIDS,
        located: bool = True,
    ):
        super().__init__()
        self.size, self.locates = size, located
        self.canvases = [Size(rows * size, columns * size) for rows, columns in grids]
        self.markers = nn.Parameter(torch.randn(4, width) * width**-0.5)
        self.location = nn.Parameter(torch.randn(4, width) * width**-0.5) if located else None

    def split(self, size: Size) -> list[View]:
        tile, views = Size(self.size, self.size), []
        canvas = self.canvas(size)
        rows, columns = canvas.height // self.size, canvas.width // self.size
        for row in range(rows):
            for column in range(columns):
                left, right = (size.width * each / columns for each in (column, column + 1))
                top, bottom = (size.height * each / rows for each in (row, row + 1))
                views.append(View((left, top, right, bottom), tile, row, column))
        return [*views, View((0, 0, size.width, size.height), tile)]

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        order: list[int] = []
        first = 0
        for number, (rows, columns) in enumerate(grids):
            whole = number == len(grids) - 1
            tokens = range(first, first + rows * columns)
            order += [WHOLE_BEGIN if whole else TILE_BEGIN, *tokens, WHOLE_END if whole else TILE_END]
            first += rows * columns
        return order

    def canvas(self, size: Size) -> Size:
        """The canvas that an image of `size` is stretched to."""
        largest = max(self.canvases, key=lambda canvas: merit(canvas, size))
        nearest = min(self.canvases, key=lambda canvas: _distance(canvas, size))
        return min(largest, nearest, key=_area)  # the first of equals

    def locate(self, centres: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
        assert self.location is not None
        centres = centres.to(self.location.dtype)
        return torch.cat([centres, 1 - centres], dim=1) / 2 @ self.location

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32, "grids": [[1, 1], [1, 2]]}


def _area(size: Size) -> int:
    return size.height * size.width


def _distance(canvas: Size, size: Size) -> tuple[float, float]:
    """How far a canvas is from an image in aspect ratio, and how far in area; 1 = equal."""
    shapes = [each.height / each.width for each in (canvas, size)]
    areas = [_area(each) for each in (canvas, size)]
    return max(shapes) / min(shapes), max(areas) / min(areas)
