"""mPLUG-Owl's visual abstractor, which may know where in an image a crop lies."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.connectors.abstractor_layer import AbstractorLayer
from chiasm.connectors.learnt import closing_tokens
from chiasm.errors import RecipeError
from chiasm.nn.grid_resampler import sinusoids
from chiasm.parts.bounds import Cells, Count, Depth, Epsilon, Heads, Tokens, Width


class VisualAbstractor(Connector, name="visual_abstractor"):
    """mPLUG-Owl's visual abstractor (arXiv 2304.14178), UReader's (arXiv 2310.05126) and mPLUG-Owl2's (2311.04257).

    Learnt queries attend to the features in layers as wide as they are. In UReader's the mean of a learnt vector
    for the crop's row and one for its column is added to all that they become. Of an encoder whose features have a
    class token, the originals read it too (`class_token: first`).

    Args:
        queries: visual tokens of a view.
        depth: layers.
        heads: of the attention.
        hidden: width of the gated MLPs.
        epsilon: of the layer norm inside the MLPs.
        cells: rows and columns of views that have a learnt position each; null = it knows no place.
        positions: side of a square of features, behind a class token, whose places mPLUG-Owl2's queries and keys
            know by sines and cosines; no other grid is read then. null = they know none.
        closing: learnt tokens behind those of every view.
    """

    rows: Float[Tensor, "r c"] | None
    columns: Float[Tensor, "r c"] | None

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        queries: Tokens = 64,
        depth: Depth = 6,
        heads: Heads = 16,
        hidden: Width = 2816,
        epsilon: Epsilon = 1e-6,
        cells: Cells | None = None,
        positions: Cells | None = None,
        closing: Count = 1,
    ):
        super().__init__()
        if in_width % heads:
            raise RecipeError(
                f"connector 'visual_abstractor': {heads} heads do not divide the features' width {in_width}"
            )
        self.cells, self.extra = cells, closing
        self.queries = nn.Parameter(torch.randn(queries, in_width) * 0.02)
        self.features = None if positions is None else 1 + positions**2
        self.layers = nn.ModuleList(
            AbstractorLayer(in_width, heads, hidden, epsilon, _places(queries, positions, in_width))
            for _ in range(depth)
        )
        # As large as what the layers make, in which smaller ones would be lost at first.
        self.rows, self.columns = (
            None if cells is None else nn.Parameter(torch.randn(cells, in_width)) for _ in range(2)
        )
        self.output = nn.Linear(in_width, out_width)
        self.closing = closing_tokens(closing, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        if self.features not in (None, grid[0] * grid[1]):
            raise RecipeError(
                f"connector 'visual_abstractor' has positions for {self.features} features, a square behind a "
                f"class token, but an image has {grid[0] * grid[1]}"
            )
        return len(self.queries) + self.extra

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, self.tokens(grid)

    def forward(
        self, grid: Float[Tensor, "n gh gw c"], cells: Int[Tensor, "n 2"] | None = None
    ) -> Float[Tensor, "n k d"]:
        self.tokens((grid.shape[1], grid.shape[2]))
        features = rearrange(grid, "n gh gw c -> n (gh gw) c")
        x: Tensor = repeat(self.queries, "k c -> n k c", n=len(grid))
        for layer in self.layers:
            x = layer(x, features)
        if self.rows is not None and self.columns is not None and cells is not None:
            places = (self.rows[cells[:, 0]] + self.columns[cells[:, 1]]) / 2
            x = x + rearrange(places, "n c -> n 1 c")
        return self.closing(self.output(x))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"queries": 4, "depth": 1, "heads": 2, "hidden": 8, "cells": 3}


def _places(queries: int, side: int | None, width: int) -> tuple[Tensor | None, Tensor | None]:
    """Positions of queries in a row, and of features in a square behind a class token, which has zeros."""
    if side is None:
        return None, None
    row = sinusoids(1, queries, 2 * width)[:, :width]
    return row, torch.cat([torch.zeros(1, width), sinusoids(side, side, width)])
