"""InternLM-XComposer2-4KHD's and -2.5's tiles: a canvas as large as the budget allows, and its overview."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from torch import nn

from chiasm.errors import RecipeError
from chiasm.parts.bounds import Cells, Pixels
from chiasm.views import MarkedViews, Size, View

WHITE = (255, 255, 255)
ROW_END, SEPARATOR = -1, -2  # the indices of the markers, as `Views.arrange` counts


class Canvas(NamedTuple):
    """A picture on a canvas of tiles, upright: its size there, and what is padding before and behind it."""

    size: Size
    picture: Size
    left: int
    top: int

    @property
    def right(self) -> int:
        return self.size.width - self.picture.width - self.left

    @property
    def bottom(self) -> int:
        return self.size.height - self.picture.height - self.top


class HDTiles(MarkedViews, name="hd_tiles"):
    """Tiles of a high-definition canvas, as in InternLM-XComposer2-4KHD (arXiv 2404.06512) and -2.5 (2407.03320).

    The longer side of the picture is made as many tiles long as `tiles` allows, the shorter keeps the aspect
    ratio and is padded with white to whole tiles. The first view is the whole canvas, padding included and
    without antialiasing; then come the tiles, row by row. The language model reads the overview row by row, a
    learnt separator, and the canvas row by row across its tiles; a learnt vector ends each row of both. The two
    markers pass through the connector as features do.

    Args:
        size: side of a tile in pixels.
        tiles: most tiles of a canvas; the original has 16 or 25 in training and up to 55 in use.
        enlarge: make small pictures as large as `tiles` allows (4KHD); else the longer side has at most the
            tiles that it fills (2.5).
        padding: where the padding stands along the shorter side: on both sides (4KHD) or at its end (2.5).
    """

    connected = True

    def __init__(
        self,
        width: int,
        *,
        size: Pixels = 336,
        tiles: Cells = 16,
        enlarge: bool = True,
        padding: Literal["both", "end"] = "both",
    ):
        super().__init__()
        self.size, self.tiles, self.enlarge, self.padding = size, tiles, enlarge, padding
        self.markers = nn.Parameter(torch.zeros(2, width))

    def split(self, size: Size) -> list[View]:
        plan, tile = self.canvas(size), Size(self.size, self.size)
        across, down = size.width / plan.picture.width, size.height / plan.picture.height

        def box(left: int, top: int, right: int, bottom: int) -> tuple[float, float, float, float]:
            return (
                (left - plan.left) * across,
                (top - plan.top) * down,
                (right - plan.left) * across,
                (bottom - plan.top) * down,
            )

        whole = box(0, 0, plan.size.width, plan.size.height)
        views = [View(whole, tile, padding=WHITE, filter="bilinear", via=plan.size)]
        for row in range(plan.size.height // self.size):
            for column in range(plan.size.width // self.size):
                left, top = column * self.size, row * self.size
                tile_box = box(left, top, left + self.size, top + self.size)
                views.append(View(tile_box, tile, row, column, padding=WHITE, filter="bilinear"))
        return views

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        if len(set(grids)) > 1:
            raise RecipeError(f"views 'hd_tiles' need tiles of one token grid, not {sorted(set(grids))}")
        rows, columns = grids[0]
        overview = torch.arange(rows * columns).view(rows, columns)
        across = self.canvas(size).size.width // self.size
        tiles = torch.arange(rows * columns, len(grids) * rows * columns).view(-1, across, rows, columns)
        mosaic = rearrange(tiles, "R C r c -> (R r) (C c)")
        return [*_with_row_ends(overview), SEPARATOR, *_with_row_ends(mosaic)]

    def canvas(self, size: Size) -> Canvas:
        """How large a picture becomes, and where on which canvas it stands; a tall one is planned lying down."""
        tall = size.width < size.height
        long, short = max(size), min(size)
        ratio = long / short
        count = 1
        while (count + 1) * math.ceil((count + 1) / ratio) <= self.tiles:
            count += 1
        if not self.enlarge:
            count = min(count, math.ceil(long / self.size))
        length = count * self.size
        breadth = max(1, int(length / ratio))
        whole = math.ceil(breadth / self.size) * self.size
        before = (whole - breadth) // 2 if self.padding == "both" else 0
        if tall:
            return Canvas(Size(length, whole), Size(length, breadth), before, 0)
        return Canvas(Size(whole, length), Size(breadth, length), 0, before)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 16, "tiles": 2}


def _with_row_ends(grid: torch.Tensor) -> list[int]:
    """A grid row by row, each with its marker behind it."""
    return [index for row in grid.tolist() for index in (*row, ROW_END)]
