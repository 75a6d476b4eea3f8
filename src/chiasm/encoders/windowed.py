"""Blocks of a vision transformer that look in windows or at the whole grid, with relative positions (ViTDet)."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.nn.activations import Activation, activation


class WindowedBlock(nn.Module):
    """Attention, in windows or of the whole grid, and MLP, each behind a LayerNorm and beside a skip connection."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        kind: Activation,
        window: int | None,
        bias: bool,
        relative: int | None,
        epsilon: float,
    ):
        super().__init__()
        self.window = window
        self.attention_norm = nn.LayerNorm(width, epsilon)
        self.attention = WindowedAttention(width, heads, bias, relative and (window or relative))
        self.mlp_norm = nn.LayerNorm(width, epsilon)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation(kind), nn.Linear(hidden, width))

    def extra_repr(self) -> str:
        return f"window={self.window}"

    def forward(self, x: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh gw c"]:
        x = x + self._attend(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))

    def _attend(self, x: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh gw c"]:
        if self.window is None:
            return self.attention(x)
        n, rows, columns, _ = x.shape
        w = self.window
        x = functional.pad(x, (0, 0, 0, -columns % w, 0, -rows % w))
        down, across = x.shape[1] // w, x.shape[2] // w
        x = self.attention(rearrange(x, "n (R r) (C c) d -> (n R C) r c d", R=down, C=across))
        x = rearrange(x, "(n R C) r c d -> n (R r) (C c) d", n=n, R=down)
        return x[:, :rows, :columns]


class WindowedAttention(nn.Module):
    """Every cell looks at every cell; scores get a learned part by the distance in rows and in columns."""

    def __init__(self, width: int, heads: int, bias: bool, side: int | None):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias)
        self.out = nn.Linear(width, width)
        tables = [
            None if side is None else nn.Parameter(torch.zeros(2 * side - 1, width // heads)) for _ in "rc"
        ]
        self.row_distances, self.column_distances = tables

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(self, x: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh gw c"]:
        _, rows, columns, _ = x.shape
        q, k, v = rearrange(self.qkv(x), "n gh gw (three h e) -> three n h (gh gw) e", three=3, h=self.heads)
        scores = None
        if self.row_distances is not None and self.column_distances is not None:
            grid = rearrange(q, "n h (gh gw) e -> n h gh gw e", gh=rows)
            by_row = torch.einsum("nhrce,rse->nhrcs", grid, _by_distance(self.row_distances, rows))
            by_column = torch.einsum("nhrce,cse->nhrcs", grid, _by_distance(self.column_distances, columns))
            scores = rearrange(
                by_row[..., :, None] + by_column[..., None, :], "n h r c s t -> n h (r c) (s t)"
            )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=scores)
        return self.out(rearrange(attended, "n h (gh gw) e -> n gh gw (h e)", gh=rows))


def _by_distance(table: Float[Tensor, "d e"], side: int) -> Float[Tensor, "q k e"]:
    """The table's row for each pair of places of a side, resized where it was made for another side."""
    if len(table) != 2 * side - 1:
        resized = functional.interpolate(rearrange(table, "d e -> 1 e d"), 2 * side - 1, mode="linear")
        table = rearrange(resized, "1 e d -> d e")
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places + side - 1]
