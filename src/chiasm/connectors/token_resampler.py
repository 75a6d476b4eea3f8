"""TextMonkey's token resampler: features that say what no later one says ask all of them (arXiv 2403.04473)."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors import Connector
from chiasm.errors import RecipeError
from chiasm.nn.multi_head import attend_in_heads
from chiasm.parts.bounds import Count, Depth, Heads, Tokens, Width


class TokenResampler(Connector, name="token_resampler"):
    """TextMonkey's token resampler (arXiv 2403.04473): the least redundant features, informed of all others.

    A feature is as redundant as it is like the later one that is nearest to it, by the cosine; the paper says any
    other. Those that are kept stay in their order and attend to all, and what they learn is added, nothing at
    first. Where the language model is of another width than the features, a linear layer follows.

    Args:
        retained: features of an image that are kept.
        overview: how many features at the end pass as they are, beside those: those of an image seen as a whole.
        width: channels in which features attend.
        depth: layers of attention and MLP.
        heads: of the attention.
        head_width: of one head.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        retained: Tokens = 512,
        overview: Count = 256,
        width: Width = 1024,
        depth: Depth = 1,
        heads: Heads = 8,
        head_width: Width = 128,
    ):
        super().__init__()
        self.retained, self.overview = retained, overview
        self.input = nn.Linear(in_width, width, bias=False)
        self.layers = nn.ModuleList(
            TokenResamplerLayer(in_width, width, heads, head_width) for _ in range(depth)
        )
        self.output = nn.Linear(in_width, out_width) if in_width != out_width else nn.Identity()

    def tokens(self, grid: tuple[int, int]) -> int:
        count = grid[0] * grid[1] - self.overview
        if count < self.retained:
            raise RecipeError(
                f"connector 'token_resampler' cannot keep {self.retained} of {max(count, 0)} features: a grid of "
                f"{grid[0]}x{grid[1]} without {self.overview} of an overview"
            )
        return self.retained + self.overview

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, self.tokens(grid)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        self.tokens((grid.shape[1], grid.shape[2]))
        flat = rearrange(grid, "n gh gw c -> n (gh gw) c")
        features, overview = flat.split([flat.shape[1] - self.overview, self.overview], dim=1)
        places = repeat(least_redundant(features, self.retained), "n k -> n k c", c=flat.shape[2])
        tokens, hidden = features.gather(1, places), self.input(features)
        latents = self.input(tokens)
        for layer in self.layers:
            latents, learnt = layer(latents, hidden)
            tokens = tokens + learnt
        return self.output(torch.cat([tokens, overview], dim=1))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"retained": 3, "overview": 0, "width": 8, "heads": 2, "head_width": 4}


@torch.no_grad()
def least_redundant(features: Float[Tensor, "n s c"], count: int) -> Int[Tensor, "n k"]:
    """Places, in their order, of the features whose nearest later one is farthest; the last has none, and stays."""
    unit = functional.normalize(features.float(), dim=-1)
    likeness = unit @ unit.mT
    earlier = torch.ones_like(likeness[0], dtype=torch.bool).tril()  # itself among them
    nearest = likeness.masked_fill(earlier, -torch.inf).amax(-1)
    return nearest.topk(count, largest=False).indices.sort(dim=1).values


class TokenResamplerLayer(nn.Module):
    """Attention to all features and to each other, whose result replaces the latents, and an MLP of it."""

    def __init__(self, out_width: int, width: int, heads: int, head_width: int):
        super().__init__()
        inner, self.head_width = heads * head_width, head_width
        self.latent_norm, self.feature_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, width, bias=False)
        self.up, self.down = nn.Linear(width, width, bias=False), nn.Linear(width, out_width, bias=False)
        nn.init.zeros_(self.down.weight)
        self.scale = nn.Parameter(torch.ones(1))

    def extra_repr(self) -> str:
        return f"head_width={self.head_width}"

    def forward(
        self, latents: Float[Tensor, "n k w"], features: Float[Tensor, "n s w"]
    ) -> tuple[Float[Tensor, "n k w"], Float[Tensor, "n k c"]]:
        """The latents for the next layer, and what is added to the tokens."""
        asking = self.latent_norm(latents)
        context = torch.cat([self.feature_norm(features), asking], dim=1)
        latents = self.out(
            attend_in_heads(self.query(asking), self.key(context), self.value(context), self.head_width)
        )
        return latents, self.scale * self.down(functional.gelu(self.up(self.mlp_norm(latents))))
