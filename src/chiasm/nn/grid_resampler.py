"""One layer of cross-attention from a grid of learnt queries to a grid of features (Qwen-VL, SEED-X)."""

from __future__ import annotations

import math

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.nn.multi_head import attend_in_heads

THETA = 10000.0  # base of the positions' wavelengths


class GridResampler(nn.Module):
    """Features to `side` x `side` tokens (Qwen-VL, arXiv 2308.12966).

    Queries and keys, but not values, carry the same fixed 2-D positions, which are interpolated (bicubic) to the
    grid of the features. The table is a buffer and is saved, as the originals have it in their checkpoints.

    side: rows and columns of tokens. heads: they must divide `out_width`.
    """

    positions: Float[Tensor, "k d"]

    def __init__(self, in_width: int, out_width: int, side: int, heads: int, epsilon: float = 1e-5):
        super().__init__()
        if out_width % heads:
            raise RecipeError(f"{heads} heads of a grid resampler do not divide its width {out_width}")
        self.heads, self.side = heads, side
        self.queries = nn.Parameter(torch.empty(side**2, out_width))
        nn.init.trunc_normal_(self.queries, std=0.02)
        self.register_buffer("positions", sinusoids(side, side, out_width))
        self.input = nn.Identity() if in_width == out_width else nn.Linear(in_width, out_width, bias=False)
        self.query_norm, self.feature_norm = (nn.LayerNorm(out_width, epsilon) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(out_width, out_width) for _ in range(4))

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        places = rearrange(resized(self.positions, grid.shape[1], grid.shape[2]), "s d -> 1 s d")
        features = self.feature_norm(self.input(rearrange(grid, "n gh gw c -> n (gh gw) c")))
        queries = self.query_norm(self.queries) + self.positions
        asking = repeat(self.query(queries), "k d -> n k d", n=len(grid))
        keys, values = self.key(features + places), self.value(features)
        return self.out(attend_in_heads(asking, keys, values, asking.shape[-1] // self.heads))


def resized(table: Float[Tensor, "k d"], rows: int, columns: int) -> Float[Tensor, "s d"]:
    """A table of a square grid's positions, row by row, for another grid (bicubic)."""
    side = round(len(table) ** 0.5)
    if (rows, columns) == (side, side):
        return table
    planes = rearrange(table.float(), "(r c) d -> 1 d r c", r=side)
    planes = functional.interpolate(planes, (rows, columns), mode="bicubic", align_corners=False)
    return rearrange(planes, "1 d r c -> (r c) d").to(table.dtype)


def sinusoids(rows: int, columns: int, width: int) -> Float[Tensor, "k d"]:
    """Sines and cosines of a cell's column, and behind them those of its row, for a grid row by row."""
    count = math.ceil(width / 4)
    frequencies = THETA ** -(torch.arange(count).float() / count)
    angles = torch.outer(torch.arange(max(rows, columns)).float(), frequencies)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    across = repeat(waves[:columns], "c d -> (r c) d", r=rows)
    table = torch.cat([across, repeat(waves[:rows], "r d -> (r c) d", c=columns)], dim=1)
    return table[:, :width].contiguous()
