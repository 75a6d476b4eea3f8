"""Learnt queries on a grid that attend to features once."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from chiasm.connectors import Connector
from chiasm.nn.grid_resampler import GridResampler
from chiasm.parts.bounds import Cells, Heads


class GridResamplerConnector(Connector, name="grid_resampler"):
    """A square of learnt queries that look once at the features (Qwen-VL, arXiv 2308.12966; SEED-X, 2404.14396).

    Queries and keys carry the same fixed 2-D positions. SEED-X reads images through one and draws through another.

    Args:
        side: rows and columns of visual tokens.
        heads: of the attention; they must divide the width of the tokens.
    """

    def __init__(self, in_width: int, out_width: int, *, side: Cells = 8, heads: Heads = 32):
        super().__init__()
        self.side = side
        self.resampler = GridResampler(in_width, out_width, side, heads)

    def tokens(self, grid: tuple[int, int]) -> int:
        return self.side**2

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        return self.resampler(grid)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"side": 2, "heads": 2}
