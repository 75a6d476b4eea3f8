"""Unified-IO 2's eye: a CLIP without its last block, whose features join what two of its blocks put out."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from chiasm.encoders import Encoder
from chiasm.encoders.preprocessor import OPENAI
from chiasm.encoders.resizing import antialiased
from chiasm.errors import RecipeError
from chiasm.nn.multi_head import attend_in_heads
from chiasm.parts.bounds import Cells, Depth, Heads, LayerIndex, Pixels, Width
from chiasm.sequence.rule import hiding


class UnifiedIOVision(Encoder, name="unified_io"):
    """The vision transformer of Unified-IO 2 (arXiv 2312.17172), with OpenCLIP's weights when it was trained.

    A feature is what the last block puts out for a patch, and behind it what an early one does: twice the `width`.
    The class token takes part in attention and is left out then. Pixels are normalised as for CLIP.

    Args:
        patch_size: side of a patch in pixels.
        width: channels of a block.
        depth: blocks; the original's are all of CLIP's but the last.
        heads: attention heads; they must divide `width`.
        hidden: width inside a block's MLP.
        table: rows and columns of the learned table of positions, interpolated (bicubic, antialias) to the patches.
        early: which block's output, from 0, is the second half of a feature.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        patch_size: Pixels = 16,
        width: Width = 768,
        depth: Depth = 11,
        heads: Heads = 12,
        hidden: Width = 3072,
        table: Cells = 14,
        early: LayerIndex = 1,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"encoder 'unified_io': {heads} heads do not divide the width {width}")
        if not -depth <= early < depth:
            raise RecipeError(f"encoder 'unified_io': early is {early}, but there are {depth} blocks")
        self.patch_size, self.width, self.side, self.early = patch_size, 2 * width, table, early % depth
        self.patchify = nn.Linear(3 * patch_size**2, width, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1 + table**2, width) * width**-0.5)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(UnifiedIOBlock(width, heads, hidden) for _ in range(depth))
        self.register_buffer("mean", torch.tensor(OPENAI[0]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(OPENAI[1]).view(3, 1, 1))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch_size or width % self.patch_size:
            raise RecipeError(
                f"encoder 'unified_io' cannot cut {height}x{width} pixels into patches of {self.patch_size}; "
                f"choose a size of view that {self.patch_size} divides"
            )
        return height // self.patch_size, width // self.patch_size

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        patches, grid = self._cut(pixels), self.grid(*pixels.shape[-2:])
        places = torch.arange(grid[0] * grid[1], device=pixels.device).expand(len(pixels), -1)
        return rearrange(self.features(patches, places, grid), "n (gh gw) c -> n gh gw c", gh=grid[0])

    def visible(self, pixels: Float[Tensor, "n 3 h w"], keep: Int[Tensor, "n s"]) -> Float[Tensor, "n s c"]:
        patches = self._cut(pixels)
        chosen = patches.gather(1, repeat(keep, "n s -> n s p", p=patches.shape[2]))
        return self.features(chosen, keep, self.grid(*pixels.shape[-2:]))

    def features(
        self,
        patches: Float[Tensor, "n s p"],
        places: Int[Tensor, "n s"],
        grid: tuple[int, int],
        real: Bool[Tensor, "n s"] | None = None,
    ) -> Float[Tensor, "n s c"]:
        """Of some patches (rows, columns and colours of each, normalised) of a picture.

        places: row by row, where on the grid each lies. real: which are no padding; None = all.
        """
        positions = self._positions(*grid)
        patch_tokens = self.patchify(patches) + positions[1:][places]
        class_token = (self.class_embedding + positions[0]).expand(len(patches), 1, -1)
        x = self.first_norm(torch.cat([class_token, patch_tokens], 1))
        mask = None
        if real is not None:
            seen = torch.cat([real.new_ones(len(real), 1), real], 1)
            mask = hiding(~(seen[:, None] & seen[:, :, None]), x.dtype)[:, None]
        outputs = []
        for block in self.blocks:
            x = block(x, mask)
            outputs.append(x)
        return torch.cat([outputs[-1], outputs[self.early]], -1)[:, 1:]

    def _cut(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n s p"]:
        normalised = (pixels - self.mean) / self.deviation
        side = self.patch_size
        return rearrange(normalised, "n c (gh dh) (gw dw) -> n (gh gw) (dh dw c)", dh=side, dw=side)

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "s c"]:
        if (rows, columns) == (self.side, self.side):
            return self.positions
        table = rearrange(self.positions[1:], "(gh gw) c -> 1 c gh gw", gh=self.side)
        table = antialiased(table, (rows, columns), "bicubic")
        return torch.cat([self.positions[:1], rearrange(table, "1 c gh gw -> (gh gw) c")])

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"patch_size": 8, "width": 16, "depth": 3, "heads": 2, "hidden": 24, "table": 3}


class UnifiedIOBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm and beside a skip connection."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self, x: Float[Tensor, "n s c"], mask: Float[Tensor, "n 1 s s"] | None
    ) -> Float[Tensor, "n s c"]:
        """mask: what is added to attention."""
        normed = self.attention_norm(x)
        query, key, value = self.query(normed), self.key(normed), self.value(normed)
        x = x + self.out(attend_in_heads(query, key, value, x.shape[-1] // self.heads, mask))
        return x + self.mlp(self.mlp_norm(x))
