"""Learnt queries that attend once to features of any grid."""

from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.connectors.learnt import attend
from chiasm.errors import RecipeError
from chiasm.nn.grid_resampler import resized, sinusoids
from chiasm.parts.bounds import Heads, Tokens

EPSILON = 1e-6


class Resampler2D(Connector, name="resampler_2d"):
    """MiniCPM-V's resampler: learnt queries attend once to features that know their places (arXiv 2408.01800).

    Positions are sines and cosines of column and row, on keys and not on values. Qwen-VL's is `grid_resampler`.

    Args:
        queries: visual tokens of a view, whatever its size.
        heads: of the attention; they divide the language model's width. The originals have one for 128 channels.
        positions: 'keys': of the view's own grid (MiniCPM-V 2.5 and 2.6). 'both': queries have some too, of a
            square of them (2.0). 'resized': of queries, and for keys the same ones stretched to the grid (1.0).
    """

    query_positions: Float[Tensor, "k d"] | None

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        queries: Tokens = 64,
        heads: Heads = 8,
        positions: Literal["keys", "both", "resized"] = "keys",
    ):
        super().__init__()
        if out_width % heads:
            raise RecipeError(f"connector 'resampler_2d': {heads} heads do not divide the width {out_width}")
        side = round(queries**0.5)
        if positions != "keys" and side * side != queries:
            raise RecipeError(
                f"connector 'resampler_2d': {queries} queries make no square, which positions {positions!r} need"
            )
        self.positions, self.head_width = positions, out_width // heads
        self.queries = nn.Parameter(torch.empty(queries, out_width))
        nn.init.trunc_normal_(self.queries, std=0.02)
        table = None if positions == "keys" else sinusoids(side, side, out_width)
        self.register_buffer(
            "query_positions", table
        )  # saved: checkpoints have it as a weight that never learns
        self.input = nn.Linear(in_width, out_width, bias=False) if in_width != out_width else nn.Identity()
        self.query_norm, self.feature_norm, self.output_norm = (
            nn.LayerNorm(out_width, eps=EPSILON) for _ in range(3)
        )
        self.query, self.key, self.value, self.output = (nn.Linear(out_width, out_width) for _ in range(4))
        self.projection = nn.Linear(out_width, out_width, bias=False)

    def tokens(self, grid: tuple[int, int]) -> int:
        return len(self.queries)

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, len(self.queries)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        features = self.feature_norm(self.input(rearrange(grid, "n gh gw c -> n (gh gw) c")))
        queries = self.query_norm(self.queries)
        if self.query_positions is not None:
            queries = queries + self.query_positions
        keys = features + self._key_positions(grid.shape[1], grid.shape[2]).to(features)
        answers = attend(
            repeat(self.query(queries), "k d -> n k d", n=len(grid)),
            self.key(keys),
            self.value(features),
            self.head_width,
        )
        return self.projection(self.output_norm(self.output(answers)))

    def _key_positions(self, rows: int, columns: int) -> Float[Tensor, "s d"]:
        if self.positions == "resized" and self.query_positions is not None:
            return resized(self.query_positions, rows, columns)
        return sinusoids(rows, columns, self.queries.shape[1])

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"queries": 4, "heads": 2}
