"""LLaVA-UHD's slices: each at its own aspect ratio, words between them, and the overview last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from chiasm.parts.bounds import Cells, Pixels
from chiasm.views import Size, View, Views
from chiasm.views.slicing import SlicePlan, Slicing, lower_multiple, overview, slices_of

BETWEEN, ROW_END = -1, -2  # the indices of the words, as `Views.arrange` counts


class UHDSlices(Views, name="uhd_slices"):
    """LLaVA-UHD's modular slices, whose aspect ratios are near the image's own (arXiv 2403.11703).

    An image is cut as by the views `slices`, but for sides that are cut to whole patches where those are rounded.
    Behind each slice stands a word, another one behind the last of a row; the overview comes last, and alone of an
    image that has no more pixels than a slice.

    Args:
        size: side of a square of as many pixels as a slice gets.
        slices: most slices of an image; 1 = the overview alone.
        patch: side in pixels of what the sides become multiples of.
        longest: the longer side in pixels that any image is given before it is cut, as the original's evaluation
            has it; null = its own.
        separators: what stands behind a slice, and behind the last of a row: a piece of the language model's
            vocabulary each, as its tokenizer calls it.
    """

    pieces: ClassVar[bool] = True

    def __init__(
        self,
        *,
        size: Pixels = 336,
        slices: Cells = 7,
        patch: Pixels = 14,
        longest: Pixels | None = None,
        separators: tuple[str, str] = (",", "<0x0A>"),
    ):
        self.slicing, self.longest = Slicing(size, slices, patch, lower_multiple), longest
        self.words = tuple(separators)

    def split(self, size: Size) -> list[View]:
        plan = self.plan(size)
        return [*slices_of(size, plan), overview(size, plan)]

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        columns, start = self.plan(size).columns, 0
        order: list[int] = []
        for number, (rows, across) in enumerate(grids, 1):
            order += range(start, start + rows * across)
            start += rows * across
            if number < len(grids):
                order.append(BETWEEN if number % columns else ROW_END)
        return order

    def plan(self, size: Size) -> SlicePlan:
        """Sizes of overview and slices, and their grid."""
        return self.slicing.plan(self._enlarged(size))

    def _enlarged(self, size: Size) -> Size:
        if self.longest is None:
            return size
        scale = self.longest / max(size)
        if size.width > size.height:
            return Size(max(int(scale * size.height), 1), self.longest)
        return Size(self.longest, max(int(scale * size.width), 1))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 16, "patch": 8, "slices": 4, "separators": ["<|pad|>", "<|end|>"]}
