"""A transformer of encoder and decoder between features and learnt queries."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Depth, Heads, Tokens, Width


class QueryTransformer(Connector, name="query_transformer"):
    """A transformer of encoder and decoder (arXiv 1706.03762): the encoder reads the features, the decoder learnt
    queries, which become the tokens.

    NExT-GPT's output projector (arXiv 2309.05519), from the hidden states of signal tokens to the space of a
    diffusion model's text encoder; norms come first, and each half ends with one.

    Args:
        queries: tokens that come out.
        width: of the transformer.
        depth: layers of the encoder, and as many of the decoder.
        heads: of the attention; they must divide `width`.
        hidden: hidden width of the MLPs.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        queries: Tokens = 77,
        width: Width = 512,
        depth: Depth = 4,
        heads: Heads = 4,
        hidden: Width = 2048,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"connector 'query_transformer': {heads} heads do not divide the width {width}")
        options: dict[str, Any] = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.input = nn.Linear(in_width, width)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, heads, hidden, **options),
            depth,
            nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, heads, hidden, **options), depth, nn.LayerNorm(width)
        )
        for weight in (*self.encoder.parameters(), *self.decoder.parameters()):
            if weight.ndim > 1:  # layers of a stack are copies of one, and would begin alike
                nn.init.xavier_uniform_(weight)
        self.output = nn.Linear(width, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        return len(self.queries)

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, len(self.queries)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        features = self.encoder(self.input(rearrange(grid, "n gh gw c -> n (gh gw) c")))
        return self.output(self.decoder(self.queries.expand(len(grid), -1, -1), features))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"queries": 3, "width": 8, "depth": 1, "heads": 2, "hidden": 16}
