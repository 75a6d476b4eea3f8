"""Learnt queries that attend to features, as Honeybee compares with."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.connectors.abstractor_layer import AbstractorLayer
from chiasm.connectors.learnt import closing_tokens, learnt_positions
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Cells, Count, Depth, Epsilon, Heads, Tokens, Width


class HoneybeeResampler(Connector, name="honeybee_resampler"):
    """Honeybee's baseline, mPLUG-Owl's visual abstractor: learnt queries attend to the features (arXiv 2304.14178).

    In every layer the residual starts from the normalised queries, as in Honeybee's code (arXiv 2312.06742).

    Args:
        queries: visual tokens.
        depth: layers.
        width: of the layers.
        heads: of the attention.
        hidden: width of the gated MLPs.
        epsilon: of the layer norm inside the MLPs.
        positions: rows and columns of the features for which positions are learnt; null = none.
        closing: learnt tokens behind those of every picture.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        queries: Tokens = 64,
        depth: Depth = 6,
        width: Width = 256,
        heads: Heads = 8,
        hidden: Width = 704,
        epsilon: Epsilon = 1e-6,
        positions: tuple[Cells, Cells] | None = None,
        closing: Count = 0,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(
                f"connector 'honeybee_resampler': {heads} heads do not divide the width {width}"
            )
        self.extra = closing
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.positions = learnt_positions(positions, in_width)
        self.input = nn.Linear(in_width, width)
        self.layers = nn.ModuleList(AbstractorLayer(width, heads, hidden, epsilon) for _ in range(depth))
        self.output = nn.Linear(width, out_width)
        self.closing = closing_tokens(closing, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        return len(self.queries) + self.extra

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        features = self.input(rearrange(self.positions(grid), "n gh gw c -> n (gh gw) c"))
        x = repeat(self.queries, "k d -> n k d", n=len(grid))
        for layer in self.layers:
            x = layer(x, features)
        return self.closing(self.output(x))
