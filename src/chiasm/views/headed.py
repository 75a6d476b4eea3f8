"""The whole image in a square, behind a learnt marker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from chiasm.parts.bounds import Pixels
from chiasm.views import GREY, MarkedViews, Size, View
from chiasm.views.letterbox import Letterbox

BEGIN = -1  # the index of the marker, as `Views.arrange` counts


class Headed(MarkedViews, name="headed"):
    """The whole image as the views `letterbox` lay it, read behind a learnt begin marker (JanusFlow,
    arXiv 2411.07975).

    Args:
        size: side of the view in pixels.
        shortest: the least height and width of the image in the view, in pixels.
        padding: colour (0 to 255) of the rest of the square.
    """

    def __init__(
        self,
        width: int,
        *,
        size: Pixels = 384,
        shortest: Pixels = 14,
        padding: tuple[int, int, int] = GREY,
    ):
        super().__init__()
        self.letterbox = Letterbox(size=size, shortest=shortest, padding=padding)
        self.markers = nn.Parameter(torch.randn(1, width) * width**-0.5)

    def split(self, size: Size) -> list[View]:
        return self.letterbox.split(size)

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        return [BEGIN, *super().arrange(size, grids)]

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32}
