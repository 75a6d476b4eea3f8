"""The whole picture between two learnt markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from chiasm.parts.bounds import Pixels
from chiasm.views import MarkedViews, Size, View
from chiasm.views.whole import Whole

BEGIN, END = -1, -2  # the indices of the markers, as `Views.arrange` counts


class Framed(MarkedViews, name="framed"):
    """The whole picture as one square view, read between a begin and an end marker as LaVIT (arXiv 2309.04669),
    Emu and Janus do.

    Args:
        size: side of the view in pixels.
        fit: how a picture that is not square becomes so; see the views `whole`.
    """

    def __init__(self, width: int, *, size: Pixels = 224, fit: Literal["pad", "crop", "stretch"] = "pad"):
        super().__init__()
        self.whole = Whole(size=size, fit=fit)
        self.markers = nn.Parameter(torch.randn(2, width) * width**-0.5)

    def split(self, size: Size) -> list[View]:
        return self.whole.split(size)

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        return [BEGIN, *super().arrange(size, grids), END]

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32}
