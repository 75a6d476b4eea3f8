"""A layer of mPLUG-Owl's visual abstractor, which Honeybee, UReader and mPLUG-Owl2 have too."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.nn.multi_head import attend_in_heads


class AbstractorLayer(nn.Module):
    """Queries attend to themselves and to features, then a gated MLP (mPLUG-Owl, arXiv 2304.14178).

    The residual starts from the normalised queries.

    width: of queries and features. heads: they must divide it. hidden: width of the MLP. epsilon: of the layer norm
    inside the MLP. positions: of the queries and of the features, added to queries and keys and not to values; they
    do not learn, but are saved, as the originals have them in their checkpoints.
    """

    query_positions: Float[Tensor, "k d"] | None
    feature_positions: Float[Tensor, "s d"] | None

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        epsilon: float,
        positions: tuple[Tensor | None, Tensor | None] = (None, None),
    ):
        super().__init__()
        self.head_width = width // heads
        self.query_norm, self.feature_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.gate, self.up = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.hidden_norm = nn.LayerNorm(hidden, eps=epsilon)
        self.down = nn.Linear(hidden, width)
        self.register_buffer("query_positions", positions[0])
        self.register_buffer("feature_positions", positions[1])

    def forward(self, x: Float[Tensor, "n k d"], features: Float[Tensor, "n s d"]) -> Float[Tensor, "n k d"]:
        x = self.query_norm(x)
        context = torch.cat([x, self.feature_norm(features)], dim=1)
        query, key = self._placed(x, context)
        x = x + self.output(
            attend_in_heads(self.query(query), self.key(key), self.value(context), self.head_width)
        )
        y = self.mlp_norm(x)
        return x + self.down(self.hidden_norm(functional.silu(self.gate(y)) * self.up(y)))

    def _placed(
        self, x: Float[Tensor, "n k d"], context: Float[Tensor, "n s d"]
    ) -> tuple[Float[Tensor, "n k d"], Float[Tensor, "n s d"]]:
        """What queries and keys are made of."""
        if self.query_positions is None or self.feature_positions is None:
            return x, context
        places = torch.cat([self.query_positions, self.feature_positions])
        return x + self.query_positions.to(x), context + places.to(x)
