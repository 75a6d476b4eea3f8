"""Learnt queries that attend once to features: what MiniCPM-V's resampler and LLaVA-UHD's have in common."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.errors import RecipeError
from chiasm.nn.multi_head import attend_in_heads

EPSILON = 1e-6


class OneLayerResampler(Connector):
    """One layer of attention, as wide as the language model, between layer norms, and a projection.

    positions: of each query; None = it has none.
    """

    query_positions: Float[Tensor, "k d"] | None

    def __init__(self, in_width: int, out_width: int, queries: int, heads: int, positions: Tensor | None):
        super().__init__()
        if out_width % heads:
            raise RecipeError(f"connector {self.name!r}: {heads} heads do not divide the width {out_width}")
        self.head_width = out_width // heads
        self.queries = nn.Parameter(torch.empty(queries, out_width))
        nn.init.trunc_normal_(self.queries, std=0.02)
        # Saved: checkpoints have it as a weight that never learns.
        self.register_buffer("query_positions", positions)
        self.input = nn.Linear(in_width, out_width, bias=False) if in_width != out_width else nn.Identity()
        self.query_norm, self.feature_norm, self.output_norm = (
            nn.LayerNorm(out_width, eps=EPSILON) for _ in range(3)
        )
        self.query, self.key, self.value, self.output = (nn.Linear(out_width, out_width) for _ in range(4))
        self.projection = nn.Linear(out_width, out_width, bias=False)

    def asking(self) -> Float[Tensor, "k d"]:
        """What attends, for any image."""
        queries = self.query_norm(self.queries)
        return self.query(queries if self.query_positions is None else queries + self.query_positions)

    def answers(
        self, asking: Float[Tensor, "n q d"], placed: Float[Tensor, "n s d"], features: Float[Tensor, "n s d"]
    ) -> Float[Tensor, "n q d"]:
        """Visual tokens. placed: the features with their positions, for keys."""
        attended = attend_in_heads(asking, self.key(placed), self.value(features), self.head_width)
        return self.projection(self.output_norm(self.output(attended)))
