"""One view of the size of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from chiasm.errors import RecipeError
from chiasm.parts.bounds import Pixels, Width
from chiasm.views import MarkedViews, Size, View

ROW_END = -1  # the index of the one marker, as `Views.arrange` counts
# What Fuyu's processor pads with: 1 of 255, because it pads before it scales.
NEAR_BLACK = (1, 1, 1)


class Native(MarkedViews, name="native"):
    """Fuyu's one view: the picture in its own size and aspect ratio, row by row (www.adept.ai/blog/fuyu-8b).

    A picture that exceeds the limits is shrunk to fit; it is filled up to whole patches on the right and below.

    Args:
        height: the most pixels of a side.
        width: the most pixels across.
        patch: side in pixels of what the sides become multiples of.
        row_ends: a learnt vector after each row of visual tokens.
        padding: colour (0 to 255) of what the picture is filled up with.
    """

    def __init__(
        self,
        language_width: int,
        *,
        height: Pixels = 1080,
        width: Width = 1920,
        patch: Pixels = 30,
        row_ends: bool = True,
        padding: tuple[int, int, int] = NEAR_BLACK,
    ):
        super().__init__()
        self.limits, self.patch = Size(height, width), patch
        self.padding = (padding[0], padding[1], padding[2])
        self.markers = (
            nn.Parameter(torch.randn(1, language_width) * language_width**-0.5) if row_ends else None
        )

    def split(self, size: Size) -> list[View]:
        resized = self.shrink(size)
        rows, columns = (math.ceil(side / self.patch) for side in resized)
        canvas = Size(rows * self.patch, columns * self.patch)
        down, across = size.height / resized.height, size.width / resized.width
        box = (0, 0, canvas.width * across, canvas.height * down)
        return [View(box, canvas, padding=self.padding)]

    def shrink(self, size: Size) -> Size:
        """The size at which a picture is shown, in whole pixels."""
        if size.height <= self.limits.height and size.width <= self.limits.width:
            return size
        scale = min(self.limits.height / size.height, self.limits.width / size.width)
        return Size(max(1, int(size.height * scale)), max(1, int(size.width * scale)))

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        if len(grids) != 1:
            raise RecipeError(f"views 'native' makes one view, not {len(grids)}")
        rows, columns = grids[0]
        if self.markers is None:
            return range(rows * columns)
        lines = [[*range(row * columns, (row + 1) * columns), ROW_END] for row in range(rows)]
        return [index for line in lines for index in line]

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"patch": 8}
