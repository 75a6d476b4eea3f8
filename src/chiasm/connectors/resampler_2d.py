"""Learnt queries that attend once to features of any grid."""

from typing import Any, Literal

from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from chiasm.connectors.one_layer_resampler import OneLayerResampler
from chiasm.errors import RecipeError
from chiasm.nn.grid_resampler import resized, sinusoids
from chiasm.parts.bounds import Heads, Tokens


class Resampler2D(OneLayerResampler, name="resampler_2d"):
    """MiniCPM-V's resampler: learnt queries attend once to features that know their places (arXiv 2408.01800).

    Positions are sines and cosines of column and row, on keys and not on values. Qwen-VL's is `grid_resampler`.

    Args:
        queries: visual tokens of a view, whatever its size.
        heads: of the attention; they divide the language model's width. The originals have one for 128 channels.
        positions: 'keys': of the view's own grid (MiniCPM-V 2.5 and 2.6). 'both': queries have some too, of a
            square of them (2.0). 'resized': of queries, and for keys the same ones stretched to the grid (1.0).
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        queries: Tokens = 64,
        heads: Heads = 8,
        positions: Literal["keys", "both", "resized"] = "keys",
    ):
        side = round(queries**0.5)
        if positions != "keys" and side * side != queries:
            raise RecipeError(
                f"connector 'resampler_2d': {queries} queries make no square, which positions {positions!r} need"
            )
        table = None if positions == "keys" else sinusoids(side, side, out_width)
        super().__init__(in_width, out_width, queries, heads, table)
        self.positions = positions

    def tokens(self, grid: tuple[int, int]) -> int:
        return len(self.queries)

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, len(self.queries)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        features = self.feature_norm(self.input(rearrange(grid, "n gh gw c -> n (gh gw) c")))
        placed = features + self._key_positions(grid.shape[1], grid.shape[2]).to(features)
        return self.answers(repeat(self.asking(), "k d -> n k d", n=len(grid)), placed, features)

    def _key_positions(self, rows: int, columns: int) -> Float[Tensor, "s d"]:
        if self.positions == "resized" and self.query_positions is not None:
            return resized(self.query_positions, rows, columns)
        return sinusoids(rows, columns, self.queries.shape[1])

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"queries": 4, "heads": 2}
