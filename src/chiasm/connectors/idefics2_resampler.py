"""A gated MLP, and a perceiver behind it."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors import Connector
from chiasm.errors import RecipeError
from chiasm.nn.multi_head import attend_in_heads
from chiasm.parts.bounds import Depth, Epsilon, Heads, Tokens, Width


class Idefics2Resampler(Connector, name="idefics2_resampler"):
    """Idefics2's connector: a gated MLP to the language model's width, then a perceiver (arXiv 2405.02246).

    Unlike Flamingo's it has RMS norms, gated MLPs and fewer key than query heads.

    Args:
        latents: visual tokens.
        depth: layers of the perceiver.
        heads: of the queries.
        key_heads: of keys and values; divides `heads`.
        head_width: of one head.
        hidden: width inside the MLP in front; null = four times the language model's.
        epsilon: of the norms.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        latents: Tokens = 64,
        depth: Depth = 3,
        heads: Heads = 16,
        key_heads: Heads = 4,
        head_width: Width = 96,
        hidden: Width | None = None,
        epsilon: Epsilon = 1e-6,
    ):
        super().__init__()
        if heads % key_heads:
            raise RecipeError(
                f"connector 'idefics2_resampler': {key_heads} key heads do not divide {heads} heads"
            )
        self.input = GatedMLP(in_width, hidden or 4 * out_width, out_width)
        self.latents = nn.Parameter(torch.ones(latents, out_width))
        self.layers = nn.ModuleList(
            Idefics2Layer(out_width, heads, key_heads, head_width, epsilon) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(out_width, eps=epsilon)

    def tokens(self, grid: tuple[int, int]) -> int:
        return len(self.latents)

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, len(self.latents)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        features = self.input(rearrange(grid, "n gh gw c -> n (gh gw) c"))
        x = repeat(self.latents, "k d -> n k d", n=len(grid))
        for layer in self.layers:
            x = layer(x, features)
        return self.norm(x)


class Idefics2Layer(nn.Module):
    def __init__(self, width: int, heads: int, key_heads: int, head_width: int, epsilon: float):
        super().__init__()
        self.head_width = head_width
        self.latent_norm = nn.RMSNorm(width, eps=epsilon)
        self.feature_norm = nn.RMSNorm(width, eps=epsilon)
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key = nn.Linear(width, key_heads * head_width, bias=False)
        self.value = nn.Linear(width, key_heads * head_width, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)
        self.mlp_norm = nn.RMSNorm(width, eps=epsilon)
        self.mlp = GatedMLP(width, 4 * width, width)

    def forward(self, x: Float[Tensor, "n k d"], features: Float[Tensor, "n s d"]) -> Float[Tensor, "n k d"]:
        latents = self.latent_norm(x)
        context = torch.cat([self.feature_norm(features), latents], dim=1)
        x = x + self.output(
            attend_in_heads(self.query(latents), self.key(context), self.value(context), self.head_width)
        )
        return x + self.mlp(self.mlp_norm(x))


class GatedMLP(nn.Module):
    """silu(gate x) * up x, projected (arXiv 2002.05202)."""

    def __init__(self, in_width: int, hidden: int, out_width: int):
        super().__init__()
        self.gate = nn.Linear(in_width, hidden, bias=False)
        self.up = nn.Linear(in_width, hidden, bias=False)
        self.down = nn.Linear(hidden, out_width, bias=False)

    def forward(self, x: Float[Tensor, "*s c"]) -> Float[Tensor, "*s d"]:
        return self.down(functional.silu(self.gate(x)) * self.up(x))
