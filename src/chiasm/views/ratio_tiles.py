"""InternVL-1.5's tiles: the grid of the closest aspect ratio, and behind it the whole picture."""

from __future__ import annotations

from typing import Any

from chiasm.errors import RecipeError
from chiasm.parts.bounds import Cells, Pixels
from chiasm.views import Size, View, Views


class RatioTiles(Views, name="ratio_tiles"):
    """InternVL-1.5's dynamic resolution: tiles of the grid whose aspect ratio is closest (arXiv 2404.16821).

    The picture is stretched to the grid, whatever its own size, and cut row by row; where there are several tiles
    the whole picture comes behind them. Of two grids that are equally close the later in the order of their tiles
    is taken if the picture has more than half of its pixels.

    Args:
        size: side of a tile in pixels.
        tiles: most tiles of a picture; the original was trained with 12 and tested with up to 40.
        fewest: fewest tiles of a picture.
        thumbnail: show the whole picture too.
    """

    def __init__(self, *, size: Pixels = 448, tiles: Cells = 12, fewest: Cells = 1, thumbnail: bool = True):
        if fewest > tiles:
            raise RecipeError(
                f"views 'ratio_tiles' cannot make at least {fewest} and at most {tiles} tiles of a picture"
            )
        self.size, self.tiles, self.fewest, self.thumbnail = size, tiles, fewest, thumbnail
        self.grids = _grids(fewest, tiles)

    def split(self, size: Size) -> list[View]:
        rows, columns = self.grid(size)
        tile, height, width = Size(self.size, self.size), size.height / rows, size.width / columns
        views = [
            View((column * width, row * height, (column + 1) * width, (row + 1) * height), tile, row, column)
            for row in range(rows)
            for column in range(columns)
        ]
        if self.thumbnail and len(views) > 1:
            views.append(View((0, 0, size.width, size.height), tile))
        return views

    def grid(self, size: Size) -> tuple[int, int]:
        """Rows and columns of the tiles of a picture."""
        ratio, area = size.width / size.height, size.width * size.height
        half_tile = 0.5 * self.size * self.size
        closest, best = (1, 1), float("inf")
        for rows, columns in self.grids:
            distance = abs(ratio - columns / rows)
            if distance < best or (distance == best and area > half_tile * rows * columns):
                closest, best = (rows, columns), distance
        return closest

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 16, "tiles": 4}


def _grids(fewest: int, most: int) -> list[tuple[int, int]]:
    """Rows and columns of all grids, by the number of their tiles.

    Those of as many tiles stand as in the original, which sorts a set: their order decides between two that are
    equally close, which happens where there are at least four tiles.
    """
    pairs = {
        (columns, rows)
        for limit in range(fewest, most + 1)
        for columns in range(1, limit + 1)
        for rows in range(1, limit + 1)
        if fewest <= columns * rows <= most
    }
    ordered = sorted(pairs, key=lambda pair: pair[0] * pair[1])
    return [(rows, columns) for columns, rows in ordered]
