"""From a varying number of code vectors back to a grid of features: LaVIT's decoder (arXiv 2309.04669)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors.selection import WeightedAttention


class Detokenizer(nn.Module):
    """Learnt queries, one for each cell of the grid, that look at one another and at the codes.

    Args:
        code_width: length of a code's vector.
        width: channels of a query.
        depth: blocks.
        heads: attention heads.
        hidden: hidden width of a block's MLP.
        cells: features to make, and most codes to make them of.
        out_width: channels of a feature.
    """

    def __init__(
        self, code_width: int, width: int, depth: int, heads: int, hidden: int, cells: int, out_width: int
    ):
        super().__init__()
        self.input = nn.Linear(code_width, width)
        self.positions = nn.Parameter(torch.randn(cells, width) * 0.02)  # of the codes, in their order
        self.queries = nn.Parameter(torch.randn(cells, width) * 0.02)
        self.blocks = nn.ModuleList(DetokenizerBlock(width, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out_width))

    def forward(
        self, vectors: Float[Tensor, "n k e"], counts: Float[Tensor, "n k"]
    ) -> Float[Tensor, "n cells c"]:
        """Features of pictures.

        counts: 1 for a code, 0 for what merely fills the row; a gradient can pass through it. The codes of a
            picture are numbered in their order, whatever stands between them.
        """
        places = (counts.detach().cumsum(1).long() - 1).clamp(min=0)
        codes = self.input(vectors) + self.positions[places]
        x = self.queries.expand(len(vectors), -1, -1)
        for block in self.blocks:
            x = block(x, codes, counts)
        return self.output(self.norm(x))


class DetokenizerBlock(nn.Module):
    """Attention among the queries, attention to the codes, and an MLP."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.own_norm, self.own = nn.LayerNorm(width), WeightedAttention(width, heads)
        self.codes_norm, self.codes = nn.LayerNorm(width), WeightedAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self, x: Float[Tensor, "n q c"], codes: Float[Tensor, "n k c"], counts: Float[Tensor, "n k"]
    ) -> Float[Tensor, "n q c"]:
        normed = self.own_norm(x)
        x = x + self.own(normed, normed)
        x = x + self.codes(self.codes_norm(x), codes, counts[:, None])
        return x + self.mlp(self.mlp_norm(x))
