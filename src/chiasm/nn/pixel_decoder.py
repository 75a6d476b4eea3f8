"""Mask2Former's pixel decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.nn.deformable import DeformableAttention
from chiasm.nn.sine_positions import sine_positions

POINTS = 4  # of each head on each level
GROUPS = 32  # of the group norms


class PixelDecoder(nn.Module):
    """Mask2Former's pixel decoder (arXiv 2112.01527): a pyramid to features for masks, and to levels to look at.

    Deformable attention joins the coarsest levels of the pyramid; each finer one is added to what was made of the
    next coarser, enlarged.

    widths: channels of the pyramid's levels, finest first. attended: how many of them, from the coarsest on, are
        joined. fused: how many finer ones, from the finest on, are added; those between are not looked at.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        attended: int,
        fused: int,
        width: int,
        mask_width: int,
        heads: int,
        hidden: int,
        depth: int,
    ):
        super().__init__()
        if attended + fused > len(widths):
            raise RecipeError(
                f"a pixel decoder of {attended} attended and {fused} fused levels needs as many of the encoder, "
                f"which has {len(widths)}"
            )
        if width % heads:
            raise RecipeError(f"{heads} heads do not divide the width {width} of a pixel decoder")
        self.attended, self.width = attended, width
        self.projections = nn.ModuleList(_normed(each, width, 1) for each in reversed(widths[-attended:]))
        self.level_embeddings = nn.Parameter(torch.randn(attended, width))
        self.layers = nn.ModuleList(PixelLayer(width, attended, heads, hidden) for _ in range(depth))
        self.lateral = nn.ModuleList(_normed(each, width, 1, nn.ReLU()) for each in widths[:fused])
        self.smooth = nn.ModuleList(_normed(width, width, 3, nn.ReLU()) for _ in range(fused))
        self.mask_features = nn.Conv2d(width, mask_width, 1)

    def forward(
        self, pyramid: Sequence[Float[Tensor, "n gh gw c"]]
    ) -> tuple[Float[Tensor, "n d h w"], list[Float[Tensor, "n e gh gw"]]]:
        """The features of which masks are made, and all levels, coarsest first."""
        grids = [rearrange(each, "n gh gw c -> n c gh gw") for each in pyramid]
        levels = self._attend(grids[-self.attended :][::-1])
        finer = list(zip(grids[: len(self.lateral)], self.lateral, self.smooth))
        for grid, lateral, smooth in reversed(finer):
            lower = lateral(grid)
            enlarged = functional.interpolate(
                levels[-1], lower.shape[-2:], mode="bilinear", align_corners=False
            )
            levels.append(smooth(lower + enlarged))
        return self.mask_features(levels[-1]), levels

    def _attend(self, grids: Sequence[Float[Tensor, "n c gh gw"]]) -> list[Float[Tensor, "n e gh gw"]]:
        grids = [projection(grid) for projection, grid in zip(self.projections, grids, strict=True)]
        sizes = [(grid.shape[-2], grid.shape[-1]) for grid in grids]
        x = torch.cat([rearrange(grid, "n e gh gw -> n (gh gw) e") for grid in grids], 1)
        positions = torch.cat(
            [
                sine_positions(*size, self.width, x.device).to(x.dtype).flatten(0, 1) + embedding
                for size, embedding in zip(sizes, self.level_embeddings, strict=True)
            ]
        )
        places = torch.cat([_centres(*size, x.device) for size in sizes]).to(x.dtype)
        for layer in self.layers:
            x = layer(x, positions, places, sizes)
        return [rearrange(level, "n gh gw e -> n e gh gw") for level in _apart(x, sizes)]


class PixelLayer(nn.Module):
    """Deformable attention of all levels to all levels and an MLP, each followed by a LayerNorm."""

    def __init__(self, width: int, levels: int, heads: int, hidden: int):
        super().__init__()
        self.attention = DeformableAttention(width, heads, POINTS, levels)
        self.attention_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.mlp_norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "n s e"],
        positions: Float[Tensor, "s e"],
        places: Float[Tensor, "s 2"],
        sizes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "n s e"]:
        x = self.attention_norm(x + self.attention(x + positions, places, _apart(x, sizes)))
        return self.mlp_norm(x + self.mlp(x))


def _apart(x: Float[Tensor, "n s e"], sizes: Sequence[tuple[int, int]]) -> list[Float[Tensor, "n gh gw e"]]:
    """The levels that stand behind each other in a row, each as a grid of its size."""
    bounds = pairwise([0, *accumulate(rows * columns for rows, columns in sizes)])
    return [
        rearrange(x[:, start:end], "n (gh gw) e -> n gh gw e", gh=rows)
        for (start, end), (rows, _) in zip(bounds, sizes, strict=True)
    ]


def _centres(rows: int, columns: int, device: torch.device) -> Float[Tensor, "s 2"]:
    """x and y of each cell's centre as shares of the grid."""
    y = (torch.arange(rows, device=device).float() + 0.5) / rows
    x = (torch.arange(columns, device=device).float() + 0.5) / columns
    return torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], -1).flatten(0, 1)


def _normed(in_width: int, out_width: int, kernel: int, *after: nn.Module) -> nn.Sequential:
    """A convolution with group norm."""
    if out_width % GROUPS:
        raise RecipeError(f"a pixel decoder's width has to be a multiple of {GROUPS}, not {out_width}")
    convolution = nn.Conv2d(in_width, out_width, kernel, padding=kernel // 2)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, out_width), *after)
