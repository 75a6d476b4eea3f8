"""Queries in BERT's blocks, with attention to features."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.errors import RecipeError
from chiasm.nn.activations import Activation, activation
from chiasm.nn.multi_head import MultiHeadAttention
from chiasm.parts.bounds import Depth, Epsilon, Heads, Tokens, Width


class QFormer(Connector, name="qformer"):
    """BLIP-2's querying transformer: learnt queries attend to each other and to the features (arXiv 2301.12597).

    A BERT without words. Its stage of pretraining with words is `chiasm.connectors.qformer_stage1`. The originals
    attend to the class token too: give the encoder `class_token: first`.

    Args:
        queries: visual tokens.
        width: channels of a query.
        depth: blocks.
        heads: attention heads; they must divide `width`.
        hidden: hidden width of a block's MLP.
        activation: of the MLPs.
        cross_every: queries attend to the features in the first of every so many blocks.
        epsilon: of the LayerNorms.
        projected: a linear layer to `width` channels before the queries read the features (NExT-GPT,
            arXiv 2309.05519).
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        queries: Tokens = 32,
        width: Width = 768,
        depth: Depth = 12,
        heads: Heads = 12,
        hidden: Width = 3072,
        activation: Activation = "gelu",
        cross_every: Depth = 2,
        epsilon: Epsilon = 1e-12,
        projected: bool = False,
    ):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.input = nn.Linear(in_width, width) if projected else nn.Identity()
        self.trunk = Trunk(
            width if projected else in_width, width, depth, heads, hidden, cross_every, epsilon, activation
        )
        self.out = nn.Linear(width, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        return len(self.queries)

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, len(self.queries)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        return self.out(self.ask(grid))

    def ask(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k w"]:
        """The queries after the last block, before they get the language model's width."""
        features = self.input(rearrange(grid, "n gh gw c -> n (gh gw) c"))
        return self.trunk(self.queries.expand(len(grid), -1, -1), features)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"queries": 3, "width": 8, "depth": 2, "heads": 2, "hidden": 16}


class Trunk(nn.Module):
    """BERT's blocks (norms after attention and MLP) with attention from the queries to features.

    text: whether words may follow the queries; they have MLPs of their own and do not attend to the features.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        cross_every: int,
        epsilon: float,
        activation: Activation = "gelu",
        text: bool = False,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"connector 'qformer': {heads} heads do not divide the width {width}")
        self.norm = nn.LayerNorm(width, epsilon)
        self.blocks = nn.ModuleList(
            QFormerBlock(
                in_width if i % cross_every == 0 else None, width, heads, hidden, epsilon, activation, text
            )
            for i in range(depth)
        )

    def forward(
        self,
        queries: Float[Tensor, "n q w"],
        features: Float[Tensor, "n s c"] | None,
        words: Float[Tensor, "n t w"] | None = None,
        *,
        mask: Bool[Tensor, "n r l"] | None = None,
        feature_mask: Bool[Tensor, "n s"] | None = None,
    ) -> Float[Tensor, "n l w"]:
        """Queries, followed by words, after the last block.

        mask: which tokens each token may attend to (r is l, or 1 for a rule that all share); without it all.
        feature_mask: features that queries may attend to.
        """
        count = queries.shape[1]
        x = self.norm(queries if words is None else torch.cat([queries, words], dim=1))
        mask = None if mask is None else rearrange(mask, "n l k -> n 1 l k")
        feature_mask = None if feature_mask is None else rearrange(feature_mask, "n s -> n 1 1 s")
        for block in self.blocks:
            x = block(x, count, features, mask, feature_mask)
        return x


class QFormerBlock(nn.Module):
    """Attention, attention to features where `in_width` is given, and MLP, each followed by its LayerNorm."""

    def __init__(
        self,
        in_width: int | None,
        width: int,
        heads: int,
        hidden: int,
        epsilon: float,
        kind: Activation,
        text: bool,
    ):
        super().__init__()
        self.attention, self.attention_norm = MultiHeadAttention(width, heads), nn.LayerNorm(width, epsilon)
        crosses = in_width is not None
        self.cross = MultiHeadAttention(width, heads, in_width=in_width) if crosses else None
        self.cross_norm = nn.LayerNorm(width, epsilon) if crosses else None
        self.feed, self.feed_norm = _mlp(width, hidden, kind), nn.LayerNorm(width, epsilon)
        self.word_feed = _mlp(width, hidden, kind) if text else None
        self.word_feed_norm = nn.LayerNorm(width, epsilon) if text else None

    def forward(
        self,
        x: Float[Tensor, "n l w"],
        count: int,
        features: Float[Tensor, "n s c"] | None,
        mask: Bool[Tensor, "n 1 r l"] | None,
        feature_mask: Bool[Tensor, "n 1 1 s"] | None,
    ) -> Float[Tensor, "n l w"]:
        x = self.attention_norm(x + self.attention(x, x, x, mask))
        queries, words = x[:, :count], x[:, count:]
        if self.cross is not None and self.cross_norm is not None and features is not None and count:
            queries = self.cross_norm(queries + self.cross(queries, features, features, feature_mask))
        queries = self.feed_norm(queries + self.feed(queries))
        if self.word_feed is None or self.word_feed_norm is None:
            return queries
        return torch.cat([queries, self.word_feed_norm(words + self.word_feed(words))], dim=1)


def _mlp(width: int, hidden: int, kind: Activation) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), activation(kind), nn.Linear(hidden, width))
