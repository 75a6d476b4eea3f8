"""Latents that attend to features and to themselves."""

from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.nn.multi_head import attend_in_heads
from chiasm.parts.bounds import Count, Depth, Heads, Tokens, Width

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class PerceiverResampler(Connector, name="perceiver_resampler"):
    """Flamingo's resampler: learnt latents attend to the features and to themselves (arXiv 2204.14198).

    Of the width of the features, as in OpenFlamingo; a linear layer follows where the language model has another.
    GVT's (arXiv 2305.12223) has that layer always: `projected: true, pictures: 1`.
    Idefics (arXiv 2306.16527) is `activation: relu`. An image by itself is the first of its document.

    Args:
        latents: visual tokens.
        depth: layers.
        heads: of the attention.
        head_width: of one head.
        hidden: width of the MLPs; null = four times the features'.
        activation: of the MLPs.
        head_norm: layer norm of every query and key.
        pictures: learnt vectors for so many pictures of a document, by their order; 0 = none.
        frames: learnt vectors for so many frames of a video; 0 = none.
        projected: that linear layer also where the widths are equal.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        latents: Tokens = 64,
        depth: Depth = 6,
        heads: Heads = 8,
        head_width: Width = 64,
        hidden: Width | None = None,
        activation: Literal["gelu", "relu"] = "gelu",
        head_norm: bool = False,
        pictures: Count = 0,
        frames: Count = 0,
        projected: bool = False,
    ):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, in_width))
        self.pictures = nn.Parameter(torch.randn(pictures, in_width)) if pictures else None
        self.frames = nn.Parameter(torch.randn(frames, in_width)) if frames else None
        self.layers = nn.ModuleList(
            PerceiverLayer(
                in_width, heads, head_width, hidden or 4 * in_width, ACTIVATIONS[activation](), head_norm
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(in_width)
        projects = projected or in_width != out_width
        self.output = nn.Linear(in_width, out_width) if projects else nn.Identity()

    def tokens(self, grid: tuple[int, int]) -> int:
        return len(self.latents)

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, len(self.latents)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        return rearrange(self.resample(rearrange(grid, "n gh gw c -> n 1 1 (gh gw) c")), "n 1 k d -> n k d")

    def resample(self, features: Float[Tensor, "n m f s c"]) -> Float[Tensor, "n m k d"]:
        """Visual tokens of m images, or videos of f frames, in the order of a document."""
        documents, images, frames = features.shape[:3]
        if self.frames is not None:
            features = features + rearrange(self.frames[:frames], "f c -> f 1 c")
        if self.pictures is not None:
            features = features + rearrange(self.pictures[:images], "m c -> m 1 1 c")
        context = rearrange(features, "n m f s c -> (n m) (f s) c")
        x = repeat(self.latents, "k c -> n k c", n=len(context))
        for layer in self.layers:
            x = layer(x, context)
        return rearrange(self.output(self.norm(x)), "(n m) k d -> n m k d", n=documents)


class PerceiverLayer(nn.Module):
    def __init__(
        self, width: int, heads: int, head_width: int, hidden: int, activation: nn.Module, head_norm: bool
    ):
        super().__init__()
        inner = heads * head_width
        self.head_width = head_width
        self.latent_norm, self.feature_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.query_norm = nn.LayerNorm(head_width) if head_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(head_width) if head_norm else nn.Identity()
        self.output = nn.Linear(inner, width, bias=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden, bias=False),
            activation,
            nn.Linear(hidden, width, bias=False),
        )

    def forward(self, x: Float[Tensor, "n k c"], features: Float[Tensor, "n s c"]) -> Float[Tensor, "n k c"]:
        latents = self.latent_norm(x)
        context = torch.cat([self.feature_norm(features), latents], dim=1)
        query = self._each_head(self.query_norm, self.query(latents))
        key = self._each_head(self.key_norm, self.key(context))
        x = x + self.output(attend_in_heads(query, key, self.value(context), self.head_width))
        return x + self.mlp(x)

    def _each_head(self, norm: nn.Module, x: Float[Tensor, "n s a"]) -> Float[Tensor, "n s a"]:
        return norm(x.unflatten(-1, (-1, self.head_width))).flatten(-2)
