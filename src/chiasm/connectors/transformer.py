"""A transformer over the features, as many tokens as there are features."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.errors import RecipeError
from chiasm.nn.multi_head import attend_in_heads
from chiasm.parts.bounds import Depth, Heads, Width


class TransformerConnector(Connector, name="transformer"):
    """A bidirectional transformer and a projection behind it: MetaQueries' connector (arXiv 2504.06256) between the
    hidden states of queries and a diffusion model.

    Args:
        depth: blocks.
        width: of the transformer, which the features are projected to; null = that of the features.
        heads: of attention; they must divide `width`.
        hidden: hidden width of the MLPs; null = four times `width`.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        depth: Depth = 24,
        width: Width | None = None,
        heads: Heads = 16,
        hidden: Width | None = None,
    ):
        super().__init__()
        inner = width or in_width
        if inner % heads:
            raise RecipeError(
                f"connector 'transformer' has width {inner}, which its {heads} heads do not divide"
            )
        self.input = nn.Linear(in_width, inner) if inner != in_width else nn.Identity()
        self.blocks = nn.ModuleList(Block(inner, heads, hidden or 4 * inner) for _ in range(depth))
        self.norm = nn.LayerNorm(inner)
        self.output = nn.Linear(inner, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        return grid[0] * grid[1]

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        x = self.input(rearrange(grid, "n gh gw c -> n (gh gw) c"))
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"depth": 1, "heads": 2, "width": 16}


class Block(nn.Module):
    """Attention and an MLP, the norms before them."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.head_width = width // heads
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "n k w"]) -> Float[Tensor, "n k w"]:
        queries, keys, values = self.mixed(self.attention_norm(x)).chunk(3, -1)
        x = x + self.out(attend_in_heads(queries, keys, values, self.head_width))
        return x + self.network(self.network_norm(x))
