"""A small vision transformer that learns from scratch."""

from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.encoders import Encoder
from chiasm.encoders.resizing import antialiased
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Depth, Epsilon, Heads, Pixels, Positive, Width


class ViT(Encoder, name="vit"):
    """A vision transformer from scratch, without a class token (arXiv 2010.11929).

    Pre-norm blocks with GELU and a final LayerNorm; a learned 2-D table of positions, interpolated (bicubic,
    antialias) for pictures of another size than `size`.

    Args:
        patch_size: side of a patch in pixels.
        width: channels of a feature.
        depth: blocks.
        heads: attention heads; they must divide `width`.
        mlp_ratio: hidden width of a block's MLP over `width`.
        size: side in pixels of the pictures whose table of positions is learned.
        epsilon: of the layer norms; timm's SigLIP, of which this is the structure too, has 1e-6.
    """

    def __init__(
        self,
        *,
        patch_size: Pixels = 16,
        width: Width = 192,
        depth: Depth = 6,
        heads: Heads = 3,
        mlp_ratio: Positive = 4.0,
        size: Pixels = 224,
        epsilon: Epsilon = 1e-5,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"encoder 'vit': {heads} heads do not divide the width {width}")
        self.patch_size = patch_size
        self.width = width
        self.patchify = nn.Conv2d(3, width, patch_size, patch_size)
        self.positions = nn.Parameter(torch.empty(1, width, *self.grid(size, size)))
        nn.init.trunc_normal_(self.positions, std=0.02)
        hidden = round(width * mlp_ratio)
        self.blocks = nn.Sequential(*(ViTBlock(width, heads, hidden, epsilon=epsilon) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=epsilon)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch_size or width % self.patch_size:
            raise RecipeError(
                f"encoder 'vit' cannot cut {height}x{width} pixels into patches of {self.patch_size}; "
                f"choose a size of view that {self.patch_size} divides"
            )
        return height // self.patch_size, width // self.patch_size

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        rows, _ = self.grid(*pixels.shape[-2:])
        return rearrange(self.norm(self.blocks(self._embed(pixels))), "n (gh gw) c -> n gh gw c", gh=rows)

    def visible(self, pixels: Float[Tensor, "n 3 h w"], keep: Int[Tensor, "n s"]) -> Float[Tensor, "n s c"]:
        x = self._embed(pixels)
        return self.norm(self.blocks(x.gather(1, repeat(keep, "n s -> n s c", c=self.width))))

    def with_tokens(
        self, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "k c"]
    ) -> tuple[Float[Tensor, "n k c"], Float[Tensor, "n gh gw c"]]:
        rows, _ = self.grid(*pixels.shape[-2:])
        x = torch.cat([tokens.expand(len(pixels), -1, -1), self._embed(pixels)], dim=1)
        x = self.norm(self.blocks(x))
        return x[:, : len(tokens)], rearrange(x[:, len(tokens) :], "n (gh gw) c -> n gh gw c", gh=rows)

    def _embed(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n s c"]:
        grid = self.grid(*pixels.shape[-2:])
        return rearrange(
            self.patchify((pixels - 0.5) / 0.5) + self._positions(*grid), "n c gh gw -> n (gh gw) c"
        )

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 c gh gw"]:
        if self.positions.shape[-2:] == (rows, columns):
            return self.positions
        return antialiased(self.positions, (rows, columns), "bicubic")

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"patch_size": 8, "width": 16, "depth": 2, "heads": 2, "size": 32}


class ViTBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm and beside a skip connection.

    causal: a token sees those before it and itself, else all.
    """

    def __init__(self, width: int, heads: int, hidden: int, causal: bool = False, epsilon: float = 1e-5):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=epsilon)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(self, x: Float[Tensor, "n s c"]) -> Float[Tensor, "n s c"]:
        x = x + self._attend(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))

    def _attend(self, x: Float[Tensor, "n s c"]) -> Float[Tensor, "n s c"]:
        q, k, v = rearrange(self.qkv(x), "n s (three h d) -> three n h s d", three=3, h=self.heads)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(rearrange(attended, "n h s d -> n s (h d)"))
