"""A small convolutional network from a grid of features to pixels."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.tokenizers.vq import GROUPS, SmallResidualBlock, Unfold, foreground_weight

COARSE = 4  # pixels along the side of a patch that the last layer may paint at once


class Painter(nn.Module):
    """Resolution doubles while channels halve, down to patches of a few pixels that are painted at once.

    Args:
        in_width: channels of a feature.
        width: channels at the resolution of the features.
        grid: rows and columns of features.
        size: height and width of the pictures in pixels, a multiple of the grid's.
    """

    def __init__(self, in_width: int, width: int, grid: tuple[int, int], size: int):
        super().__init__()
        if grid[0] != grid[1] or size % grid[0]:
            raise RecipeError(
                f"a painter cannot paint {size} x {size} pixels from a grid of {grid[0]} x {grid[1]}"
            )
        self.grid, patch = grid, size // grid[0]
        channels = _rounded(width)
        layers: list[nn.Module] = [nn.Conv2d(in_width, channels, 3, 1, 1), SmallResidualBlock(channels)]
        while patch > COARSE and patch % 2 == 0:
            before, width, patch = channels, width // 2, patch // 2
            channels = _rounded(width)
            layers += [nn.Conv2d(before, channels * 4, 1), Unfold(2), SmallResidualBlock(channels)]
        self.layers = nn.Sequential(
            *layers,
            nn.GroupNorm(GROUPS, channels),
            nn.SiLU(),
            nn.Conv2d(channels, 3 * patch**2, 3, 1, 1),
            Unfold(patch),
        )

    def forward(self, features: Float[Tensor, "n p c"]) -> Float[Tensor, "n 3 h w"]:
        """Pixels, not yet cut to [0, 1]."""
        planes = rearrange(features, "n (gh gw) c -> n c gh gw", gh=self.grid[0])
        return self.layers(planes).float() / 2 + 0.5

    @staticmethod
    def loss(
        reconstructed: Float[Tensor, "n 3 h w"], pixels: Float[Tensor, "n 3 h w"], foreground: float
    ) -> Loss:
        """Absolute and squared error of pixels in [-1, 1]; `foreground` weighs what differs from the median."""
        error = 2 * (reconstructed - pixels)
        return Loss.of((error.abs() + error.square()) * foreground_weight(pixels, foreground))


def _rounded(width: int) -> int:
    return max(GROUPS, round(width / GROUPS) * GROUPS)
