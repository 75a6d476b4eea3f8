"""Several encoders as one: their features joined on channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.encoders import Encoder
from chiasm.encoders.resizing import antialiased
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Pixels


class Hybrid(Encoder, name="hybrid"):
    """Several encoders look at the same view, each at its own resolution (DeepSeek-VL, arXiv 2403.05525).

    Their features are joined on channels, in the order of the encoders.

    Args:
        encoders: the encoders, as `{type: NAME, option: value, ...}`.
        sizes: for each encoder the shorter side in pixels to which the view is resized (bilinear, antialiased);
            null = the view as it is.
        resize: grids that differ are resized (bicubic, antialiased) to the largest; else they are refused.
    """

    encoders: Any  # an nn.ModuleList of them; Any, because torch does not say of what

    def __init__(self, *, encoders: list[Encoder], sizes: list[Pixels | None], resize: bool = False):
        super().__init__()
        if not encoders or len(encoders) != len(sizes):
            raise RecipeError(
                f"encoder 'hybrid' has {len(encoders)} encoders but {len(sizes)} sizes; give one a piece"
            )
        self.encoders = nn.ModuleList(encoders)
        self.sizes, self.resize = list(sizes), resize
        self.width = sum(encoder.width for encoder in encoders)

    def standalone(self) -> dict[str, Any]:
        return {"encoders": [encoder.spec | encoder.standalone() for encoder in self.encoders]}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        grids = [
            encoder.grid(*self.size_of(index, height, width)) for index, encoder in enumerate(self.encoders)
        ]
        if len(set(grids)) > 1 and not self.resize:
            listed = ", ".join(f"{rows}x{columns}" for rows, columns in grids)
            raise RecipeError(
                f"encoder 'hybrid': the grids of its encoders for {height}x{width} pixels differ ({listed}); "
                "choose sizes that make them equal, or resize: true"
            )
        return max(grids)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, resize={self.resize}"

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        self.grid(*pixels.shape[-2:])
        return self.joined([self._resized(index, pixels) for index in range(len(self.encoders))])

    def alone(self, index: int, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        """The features of one encoder."""
        features: Tensor = self.encoders[index](self._resized(index, pixels))
        return features

    def size_of(self, index: int, height: int, width: int) -> tuple[int, int]:
        """The height and width at which one encoder sees pixels of this size."""
        size = self.sizes[index]
        if size is None:
            return height, width
        shorter = min(height, width)
        return height * size // shorter, width * size // shorter

    def joined(self, pictures: Sequence[Float[Tensor, "n 3 h w"]]) -> Float[Tensor, "n gh gw c"]:
        """The features of pixels that each encoder has at its own size already."""
        features = [encoder(pixels) for encoder, pixels in zip(self.encoders, pictures, strict=True)]
        return torch.cat(resized_alike(features), dim=-1)

    def _resized(self, index: int, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        target = self.size_of(index, *pixels.shape[-2:])
        return pixels if target == pixels.shape[-2:] else antialiased(pixels, target, "bilinear")

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "encoders": [{"type": "patches", "patch_size": 8}, {"type": "patches", "patch_size": 4}],
            "sizes": [None, 16],
        }


def resized_alike(grids: Sequence[Float[Tensor, "n _ _ _"]]) -> list[Float[Tensor, "n gh gw _"]]:
    """Grids of features, those that are smaller resized to the largest."""
    largest = max((grid.shape[1], grid.shape[2]) for grid in grids)
    return [grid if grid.shape[1:3] == largest else _enlarged(grid, largest) for grid in grids]


def _enlarged(grid: Float[Tensor, "n h w c"], size: tuple[int, int]) -> Float[Tensor, "n gh gw c"]:
    return rearrange(
        antialiased(rearrange(grid, "n h w c -> n c h w"), size, "bicubic"), "n c h w -> n h w c"
    )
