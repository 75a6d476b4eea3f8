"""Qwen-VL's vision transformer (ViT-bigG)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.encoders.blockwise import BlockUpdates, BlockwiseEncoder
from chiasm.encoders.preprocessor import OPENAI
from chiasm.errors import RecipeError
from chiasm.nn.grid_resampler import GridResampler, resized
from chiasm.parts.bounds import Cells, Depth, Heads, Pixels, Width

EPSILON = 1e-6  # of all LayerNorms


class QwenVL(BlockwiseEncoder, name="qwen_vl"):
    """Qwen-VL's encoder (arXiv 2308.12966), which SEED-X (2404.14396) and Monkey (2311.06607) have too.

    OpenCLIP's ViT-bigG without its class token, and one layer of cross-attention that makes of all patches a square
    grid of features. Pixels are normalised as for CLIP. The defaults are the published sizes, at 448 pixels.

    Args:
        patch_size: side of a patch in pixels.
        width: channels of a patch.
        depth: blocks.
        heads: attention heads of the blocks; they must divide `width`.
        hidden: hidden width of a block's MLP.
        side: rows and columns of features.
        out_width: channels of a feature.
        pool_heads: heads of the cross-attention; they must divide `out_width`.
        table: rows and columns of the learnt positions, which are resized to the patches of an image.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        patch_size: Pixels = 14,
        width: Width = 1664,
        depth: Depth = 48,
        heads: Heads = 16,
        hidden: Width = 8192,
        side: Cells = 16,
        out_width: Width = 4096,
        pool_heads: Heads = 32,
        table: Cells = 16,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"encoder 'qwen_vl': {heads} heads must divide the width {width}")
        self.patch_size, self.side, self.channels, self.width = patch_size, side, width, out_width
        self.patchify = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.positions = nn.Parameter(torch.randn(table**2, width) * width**-0.5)
        self.input_norm = nn.LayerNorm(width, EPSILON)
        self.blocks = nn.ModuleList(QwenVLBlock(width, heads, hidden) for _ in range(depth))
        self.pool = GridResampler(width, out_width, side, pool_heads, EPSILON)
        self.final_norm = nn.LayerNorm(out_width, EPSILON)
        self.projection = nn.Linear(out_width, out_width, bias=False)
        nn.init.normal_(self.projection.weight, std=out_width**-0.5)
        self.register_buffer("mean", torch.tensor(OPENAI[0]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(OPENAI[1]).view(3, 1, 1))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch_size or width % self.patch_size:
            raise RecipeError(
                f"encoder 'qwen_vl' cannot cut {height}x{width} pixels into patches of {self.patch_size}; "
                f"choose a size of view that {self.patch_size} divides"
            )
        return self.side, self.side

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        patches = self.begin(pixels)
        x = rearrange(patches, "n gh gw c -> n (gh gw) c")
        for block in self.blocks:
            x = block(x)
        return self.finish(rearrange(x, "n (gh gw) c -> n gh gw c", gh=patches.shape[1]))

    def trunk(self) -> Iterator[nn.Parameter]:
        yield self.positions
        for part in (self.patchify, self.input_norm, self.blocks):
            yield from part.parameters()

    def begin(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        self.grid(*pixels.shape[-2:])
        patches = rearrange(self.patchify((pixels - self.mean) / self.deviation), "n c gh gw -> n gh gw c")
        rows, columns = patches.shape[1:3]
        positions = rearrange(resized(self.positions, rows, columns), "(gh gw) c -> gh gw c", gh=rows)
        return self.input_norm(patches + positions)

    def finish(self, patches: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh2 gw2 d"]:
        features = self.projection(self.final_norm(self.pool(patches)))
        return rearrange(features, "n (gh gw) c -> n gh gw c", gh=self.side)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            **{"patch_size": 8, "width": 16, "depth": 2, "heads": 2, "hidden": 24},
            **{"side": 2, "out_width": 16, "pool_heads": 2},
        }


class QwenVLBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm and beside a skip connection."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = (nn.LayerNorm(width, EPSILON) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(
        self, x: Float[Tensor, "*n s c"], updates: BlockUpdates | None = None
    ) -> Float[Tensor, "*n s c"]:
        normed = self.attention_norm(x)
        qkv = [layer(normed) for layer in (self.query, self.key, self.value)]
        if updates is not None:
            qkv = [each + update for each, update in zip(qkv, updates.qkv(normed).chunk(3, -1), strict=True)]
        q, k, v = (rearrange(each, "... s (h e) -> ... h s e", h=self.heads) for each in qkv)
        attended = rearrange(functional.scaled_dot_product_attention(q, k, v), "... h s e -> ... s (h e)")
        x = x + (self.out(attended) if updates is None else self.out(attended) + updates.out(attended))
        mlp = self.down(functional.gelu(self.up(self.mlp_norm(x))))
        return x + (mlp if updates is None else mlp + updates.mlp(x))
