"""LLaVA-NeXT's tiles: the whole picture, and behind it the tiles of an enlargement that keeps its aspect ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.parts.bounds import Pixels
from chiasm.views import GREY, MarkedViews, Size, View
from chiasm.views.whole import Whole

BLACK = (0, 0, 0)
PINPOINTS = [(672, 336), (336, 672), (672, 672), (336, 1008), (1008, 336)]  # LLaVA-1.6's, heights first
NEWLINE = -1  # the index of the one marker, as `Views.arrange` counts


class Enlargement(NamedTuple):
    """A picture on a canvas of tiles: how large it becomes, and the left and upper edge where it is laid."""

    canvas: Size
    picture: Size
    left: int
    top: int


class AnyResolution(MarkedViews, name="any_resolution"):
    """LLaVA-1.6's any-resolution tiles (LLaVA-NeXT, llava-vl.github.io, January 2024).

    The first view is the whole picture, as LLaVA-1.6 has it with its aspect ratio not kept. The others are the
    tiles, row by row, of the canvas that shows most of the picture and wastes least, on black all round.

    Args:
        size: side of a tile in pixels.
        resolutions: height and width of each canvas to choose from, in multiples of `size`; of two that are
            equally good the first is taken. None at all: the whole picture only.
        arrangement: how the language model reads the tiles. 'tiles' one after another; 'mosaic' row by row of
            the whole canvas; 'unpadded' likewise, without what is padding and with a learnt vector after each
            row (what LLaVA-1.6 was trained with).
        decimals: how many decimals of an unpadded side are looked at before it is cut to whole tokens; the
            original looks at all, transformers at 7.
        fit: how the whole picture becomes square; see the views `whole`.
        padding: colour (0 to 255) of what 'pad' adds to the whole picture.
    """

    def __init__(
        self,
        width: int,
        *,
        size: Pixels = 336,
        resolutions: list[tuple[Pixels, Pixels]] = PINPOINTS,
        arrangement: Literal["tiles", "mosaic", "unpadded"] = "unpadded",
        decimals: int | None = None,
        fit: Literal["pad", "crop", "stretch"] = "stretch",
        padding: tuple[int, int, int] = GREY,
    ):
        super().__init__()
        self.size, self.arrangement, self.decimals = size, arrangement, decimals
        self.whole = Whole(size=size, fit=fit, padding=padding)
        self.resolutions = [Size(*each) for each in resolutions]
        for height, across in self.resolutions:
            if height < 1 or across < 1 or height % size or across % size:
                raise RecipeError(
                    f"views 'any_resolution' cannot cut a canvas of {height}x{across} into {size}x{size}"
                )
        marked = arrangement == "unpadded"
        self.markers = nn.Parameter(torch.randn(1, width) * width**-0.5) if marked else None

    def split(self, size: Size) -> list[View]:
        tile, views = Size(self.size, self.size), self.whole.split(size)
        if not self.resolutions:
            return views
        plan = self.enlarge(size)
        across, down = size.width / plan.picture.width, size.height / plan.picture.height
        for row in range(plan.canvas.height // self.size):
            for column in range(plan.canvas.width // self.size):
                left, top = column * self.size - plan.left, row * self.size - plan.top
                right, bottom = left + self.size, top + self.size
                box = (left * across, top * down, right * across, bottom * down)
                views.append(View(box, tile, row, column, padding=BLACK))
        return views

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        if len(set(grids)) > 1:
            raise RecipeError(
                f"views 'any_resolution' needs tiles of one token grid, not {sorted(set(grids))}"
            )
        (rows, columns), whole = grids[0], range(grids[0][0] * grids[0][1])
        if self.arrangement == "tiles":
            return range(len(grids) * len(whole))
        if len(grids) == 1:
            return [*whole, NEWLINE] if self.arrangement == "unpadded" else whole
        canvas = self.enlarge(size).canvas
        tiles = torch.arange(len(whole), len(grids) * len(whole)).view(
            canvas.height // self.size, -1, rows, columns
        )
        mosaic = rearrange(tiles, "R C r c -> (R r) (C c)")
        if self.arrangement == "unpadded":
            mosaic = self.unpadded(mosaic, size)
            mosaic = torch.cat([mosaic, torch.full((len(mosaic), 1), NEWLINE)], dim=1)
        return [*whole, *mosaic.flatten().tolist()]

    def enlarge(self, size: Size) -> Enlargement:
        """Onto which canvas a picture is laid, how large, and where."""
        canvas = max(self.resolutions, key=lambda canvas: merit(canvas, size))  # the first of equals
        across, down = canvas.width / size.width, canvas.height / size.height
        if across < down:
            picture = Size(min(math.ceil(size.height * across), canvas.height), canvas.width)
        else:
            picture = Size(canvas.height, min(math.ceil(size.width * down), canvas.width))
        return Enlargement(
            canvas, picture, (canvas.width - picture.width) // 2, (canvas.height - picture.height) // 2
        )

    def unpadded(self, mosaic: Int[Tensor, "r c"], size: Size) -> Int[Tensor, "r c"]:
        """The cells of a mosaic that show the picture, as LLaVA counts them: half the padding from each side."""
        rows, columns = mosaic.shape
        if size.width / size.height > columns / rows:
            edge = (rows - self._whole(size.height * (columns / size.width))) // 2
            return mosaic[edge : rows - edge]
        edge = (columns - self._whole(size.width * (rows / size.height))) // 2
        return mosaic[:, edge : columns - edge]

    def _whole(self, side: float) -> int:
        return int(side if self.decimals is None else round(side, self.decimals))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 16, "resolutions": [[32, 32]]}


def merit(canvas: Size, size: Size) -> tuple[int, int]:
    """How many pixels of the picture a canvas can show, and (negative) how many of its own are wasted."""
    scale = min(canvas.width / size.width, canvas.height / size.height)
    covered = int(size.width * scale) * int(size.height * scale)
    effective = min(covered, size.width * size.height)
    return effective, effective - canvas.width * canvas.height
