"""Codes through small networks before and behind the language model."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.heads import HeadContext
from chiasm.heads.categorical import Categorical
from chiasm.parts.bounds import Depth, Width


class ProjectedCodes(Categorical, name="mlp"):
    """Janus' generation adaptor and head (arXiv 2410.13848).

    A code's embedding is narrow and widened by a network of its own, and a network predicts the codes.

    Args:
        code_width: width of the codes' own embedding.
        depth: linear layers that widen it to the language model's width, GELU between them.
        hidden: width of the layer before the prediction.
    """

    def __init__(
        self,
        context: HeadContext,
        symbols: int,
        *,
        code_width: Width = 8,
        depth: Depth = 2,
        hidden: Width = 2048,
    ):
        super().__init__()
        self.codes = nn.Embedding(symbols, code_width) if symbols else None
        widths = [code_width] + [context.width] * depth if symbols else []
        layers = [layer for a, b in pairwise(widths) for layer in (nn.GELU(), nn.Linear(a, b))]
        self.adapter = nn.Sequential(*layers[1:])
        self.output = nn.Sequential(
            nn.Linear(context.width, hidden), nn.GELU(), nn.Linear(hidden, context.codes.size)
        )

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"hidden": 16}

    def embed(self, values: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        assert self.codes is not None
        return self.adapter(self.codes(values))

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        return self.output(hidden).float()
