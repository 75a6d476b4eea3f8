"""Learnt queries that attend once, each to its own cell of a view."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from chiasm.connectors.one_layer_resampler import OneLayerResampler
from chiasm.errors import RecipeError
from chiasm.nn.grid_resampler import resized, sinusoids
from chiasm.parts.bounds import Heads, Tokens

# Rows and columns of features that a query's region is pooled to, in the original's order: of equals the first.
BINS = ((2, 4), (2, 3), (3, 4), (3, 3), (4, 2), (3, 2), (4, 3))


class RegionResampler(OneLayerResampler, name="region_resampler"):
    """LLaVA-UHD's spatial resampler: each learnt query attends to its own region of the view (arXiv 2403.11703).

    The regions are the cells of a square of them, laid over the view whatever its aspect ratio, so that a token
    stands for a place. Each is pooled (RoIAlign, arXiv 1703.06870) to features whose rows and columns are about as
    the view's are. Positions are sines and cosines of column and row of that square, stretched to the view's grid
    for keys; values have none.

    Args:
        queries: visual tokens of a view: a square number.
        heads: of the attention; they divide the language model's width. The original has one for 128 channels.
    """

    query_positions: Float[Tensor, "k d"]

    def __init__(self, in_width: int, out_width: int, *, queries: Tokens = 144, heads: Heads = 32):
        side = math.isqrt(queries)
        if side**2 != queries:
            raise RecipeError(f"connector 'region_resampler': {queries} queries make no square of regions")
        super().__init__(in_width, out_width, queries, heads, sinusoids(side, side, out_width))
        self.side = side

    def tokens(self, grid: tuple[int, int]) -> int:
        return self.side**2

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        features = self.feature_norm(self.input(grid))
        places = resized(self.query_positions, *grid.shape[1:3]).to(features)
        placed = features + rearrange(places, "(gh gw) d -> gh gw d", gh=grid.shape[1])
        asking = repeat(self.asking(), "k d -> (n k) 1 d", n=len(grid))
        own = (rearrange(self.regions(each), "n k s d -> (n k) s d") for each in (placed, features))
        return rearrange(self.answers(asking, *own), "(n k) 1 d -> n k d", n=len(grid))

    def regions(self, features: Float[Tensor, "n gh gw d"]) -> Float[Tensor, "n k s d"]:
        """The features of each query's region, pooled."""
        rows, columns = features.shape[1:3]
        down, across = bins(rows, columns)
        vertical, horizontal = (
            region_weights(length, self.side, count).to(features.device)
            for length, count in ((rows, down), (columns, across))
        )
        pooled = einsum(vertical, horizontal, features.float(), "a gh, b gw, n gh gw d -> n a b d")
        pooled = rearrange(pooled, "n (r y) (c x) d -> n (r c) (y x) d", y=down, x=across)
        return pooled.to(features.dtype)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"queries": 4, "heads": 2}


def bins(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns that a region is pooled to: those whose aspect ratio is nearest, in logarithms."""
    ratio = math.log(columns / rows)
    return min(BINS, key=lambda each: abs(ratio - math.log(each[1] / each[0])))


def region_weights(length: int, side: int, count: int) -> Float[Tensor, "k s"]:
    """What each of `count` bins of each of `side` cells of an axis has of its `length` features.

    RoIAlign along one axis: a bin is the mean of equally spaced samples, as many as it has features at most; a
    sample lies between two features and has of each as it is near. A cell is one feature long at least, and what
    of it lies beyond the last feature is zero.
    """
    extent = max(length / side, 1.0)
    samples = max(-(-length // (side * count)), 1)
    offsets = (torch.arange(count * samples, dtype=torch.float64) + 0.5) * extent / (count * samples)
    places = torch.arange(side, dtype=torch.float64)[:, None] * (length / side) + offsets
    near = places.clamp(max=length - 1)[..., None] - torch.arange(length)
    weights = (1 - near.abs()).clamp(min=0) * (places <= length)[..., None]
    return rearrange(weights, "k (b i) s -> (k b) i s", i=samples).mean(1).float()
