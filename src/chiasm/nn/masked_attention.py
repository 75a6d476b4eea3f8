"""Queries that look where their own masks are, level after level (Mask2Former, arXiv 2112.01527)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.nn.sine_positions import sine_positions

LEVELS = 3  # of the pyramid's coarsest, which the layers look at in turn


class QueryMasks(NamedTuple):
    """What queries have become, and the masks that they stand for: logits of each place."""

    queries: Float[Tensor, "n q e"]
    logits: Float[Tensor, "n q h w"]


class MaskedDecoder(nn.Module):
    """Mask2Former's transformer decoder: attention to the image within each query's mask, among queries, MLP.

    width: of the queries. in_width: channels of the levels. mask_width: of the features of which masks are made.
    prenorm: LayerNorms stand in front of attention and MLP, else behind them.
    """

    def __init__(
        self,
        width: int,
        in_width: int,
        mask_width: int,
        *,
        queries: int,
        heads: int,
        hidden: int,
        depth: int,
        prenorm: bool,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"{heads} heads do not divide the width {width} of a mask decoder")
        self.positions = nn.Parameter(torch.randn(queries, width))
        self.level_embeddings = nn.Parameter(torch.randn(LEVELS, width))
        project = in_width != width
        self.projections = nn.ModuleList(
            nn.Conv2d(in_width, width, 1) if project else nn.Identity() for _ in range(LEVELS)
        )
        self.layers = nn.ModuleList(MaskedLayer(width, heads, hidden, prenorm) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.mask = mlp(width, width, mask_width, depth=3)

    def forward(
        self,
        queries: Float[Tensor, "n q e"],
        features: Float[Tensor, "n d h w"],
        levels: Sequence[Float[Tensor, "n c gh gw"]],
    ) -> list[QueryMasks]:
        """The masks before the first layer and behind each. levels: coarsest first."""
        if len(levels) < LEVELS:
            raise RecipeError(f"a mask decoder looks at {LEVELS} levels of the image, but has {len(levels)}")
        looked_at = [self._level(i, levels[i]) for i in range(LEVELS)]
        masks = [self._masks(queries, features)]
        for i, layer in enumerate(self.layers):
            image, places, size = looked_at[i % LEVELS]
            queries = layer(queries, self.positions, image, places, _barred(masks[-1].logits, size))
            masks.append(self._masks(queries, features))
        return masks

    def _level(
        self, i: int, level: Float[Tensor, "n c gh gw"]
    ) -> tuple[Float[Tensor, "n s e"], Float[Tensor, "s e"], tuple[int, int]]:
        x: Tensor = self.projections[i](level)
        rows, columns = x.shape[-2:]
        places = sine_positions(rows, columns, x.shape[1], x.device).to(x.dtype).flatten(0, 1)
        return rearrange(x, "n e gh gw -> n (gh gw) e") + self.level_embeddings[i], places, (rows, columns)

    def _masks(self, queries: Float[Tensor, "n q e"], features: Float[Tensor, "n d h w"]) -> QueryMasks:
        normed = self.norm(queries)
        return QueryMasks(normed, torch.einsum("nqd,ndhw->nqhw", self.mask(normed), features))


class MaskedLayer(nn.Module):
    """One layer of `MaskedDecoder`."""

    def __init__(self, width: int, heads: int, hidden: int, prenorm: bool):
        super().__init__()
        self.prenorm, self.heads = prenorm, heads
        self.cross_norm, self.norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def extra_repr(self) -> str:
        return f"prenorm={self.prenorm}"

    def forward(
        self,
        x: Float[Tensor, "n q e"],
        positions: Float[Tensor, "q e"],
        image: Float[Tensor, "n s e"],
        places: Float[Tensor, "s e"],
        barred: Bool[Tensor, "n q s"],
    ) -> Float[Tensor, "n q e"]:
        own = self.cross_norm(x) if self.prenorm else x
        mask = barred.repeat_interleave(self.heads, 0)
        seen = self.cross(own + positions, image + places, image, attn_mask=mask, need_weights=False)[0]
        x = x + seen if self.prenorm else self.cross_norm(x + seen)
        own = self.norm(x) if self.prenorm else x
        placed = own + positions
        others = self.attention(placed, placed, own, need_weights=False)[0]
        x = x + others if self.prenorm else self.norm(x + others)
        if self.prenorm:
            return x + self.mlp(self.mlp_norm(x))
        return self.mlp_norm(x + self.mlp(x))


def mlp(in_width: int, hidden: int, out_width: int, *, depth: int) -> nn.Sequential:
    """`depth` linear layers with ReLU between them."""
    widths = [in_width, *[hidden] * (depth - 1), out_width]
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.ReLU(), nn.Linear(a, b)] if layers else [nn.Linear(a, b)]
    return nn.Sequential(*layers)


def _barred(logits: Float[Tensor, "n q h w"], size: tuple[int, int]) -> Bool[Tensor, "n q s"]:
    """Places outside of each query's mask; none for a query whose mask is empty."""
    resized = functional.interpolate(logits.detach().float(), size, mode="bilinear", align_corners=False)
    outside = rearrange(resized.sigmoid() < 0.5, "n q gh gw -> n q (gh gw)")
    return outside & ~outside.all(-1, keepdim=True)
