"""Vectors as the tokens of a denoiser, by way of learnt latents."""

from __future__ import annotations

from typing import Any

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors.perceiver_resampler import PerceiverLayer
from chiasm.decoders.conditioners import Conditioner, ConditionerContext
from chiasm.decoders.conditioners.vectors import vectors_in_row
from chiasm.decoders.conditions import Condition
from chiasm.errors import RecipeError
from chiasm.nn.attention_pool import AttentionPool
from chiasm.parts.bounds import Depth, Heads, Tokens, Width
from chiasm.tokenizers.spaces import Vectors


class PerceiverTokens(Conditioner, name="perceiver"):
    """SEED-X's adapter (arXiv 2404.14396): learnt latents that look at the vectors become the denoiser's tokens.

    A denoiser that reads a pooled vector too (SDXL) is given an attention pooling of the latents, and as many of
    its tokens' channels as that vector has, the last ones, are projected apart. What guidance leads away from is a
    learnt target: in SEED-X the features of a grey image. The defaults are SEED-X's.

    Args:
        latents: tokens.
        depth: layers.
        width: channels of a latent.
        heads: of the attention, also of the pooling; they must divide `width`.
        head_width: of one head of the layers.
        hidden: width of the MLPs.
        normalised: every channel of the vectors is divided by its length over all vectors of a target.
    """

    def __init__(
        self,
        context: ConditionerContext,
        *,
        latents: Tokens = 64,
        depth: Depth = 4,
        width: Width = 1024,
        heads: Heads = 16,
        head_width: Width = 64,
        hidden: Width = 4096,
        normalised: bool = False,
    ):
        super().__init__()
        if not isinstance(context.space, Vectors) or not context.space.length:
            raise RecipeError(
                "conditioner 'perceiver' takes vectors whose width and number are known; nothing here makes any"
            )
        if width % heads:
            raise RecipeError(f"conditioner 'perceiver': {heads} heads do not divide the width {width}")
        self.space: Vectors = context.space
        self.normalised = normalised
        self.negative = nn.Parameter(torch.randn(*self.space.grid, self.space.width))
        self.latents = nn.Parameter(torch.randn(latents, width) * width**-0.5)
        self.input = nn.Linear(self.space.width, width)
        self.layers = nn.ModuleList(
            PerceiverLayer(width, heads, head_width, hidden, nn.GELU(), False) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        pooled = context.pooled_width or 0
        if pooled >= context.token_width:
            raise RecipeError(
                f"conditioner 'perceiver' projects as many channels of the tokens apart as the pooled vector has, "
                f"{pooled}, but the denoiser's tokens have {context.token_width}"
            )
        widths = [context.token_width - pooled, *([pooled] if pooled else [])]
        self.projections = nn.ModuleList(nn.Linear(width, each) for each in widths)
        self.pool = AttentionPool(latents, width, heads, pooled) if pooled else None

    def forward(self, target: Float[Tensor, "n gh gw c"]) -> Condition:
        vectors = vectors_in_row(target, self.space.width, self.name)
        if self.normalised:
            vectors = functional.normalize(vectors, dim=1)
        features = self.input(vectors)
        x = repeat(self.latents, "k c -> n k c", n=len(features))
        for layer in self.layers:
            x = layer(x, features)
        x = self.norm(x)
        tokens = torch.cat([project(x) for project in self.projections], -1)
        return Condition(tokens, added={"text_embeds": self.pool(x)} if self.pool is not None else None)

    def empty(self, condition: Condition) -> Condition:
        negative = self(self.negative[None])
        rows = len(condition.tokens)
        added = {name: each.expand(rows, -1) for name, each in (negative.added or {}).items()}
        return condition._replace(tokens=negative.tokens.expand(rows, -1, -1), added=added or None)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"latents": 3, "depth": 1, "width": 8, "heads": 2, "head_width": 4, "hidden": 16}
