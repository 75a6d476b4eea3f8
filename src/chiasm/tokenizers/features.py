"""Features of a frozen encoder as what is written of an image."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chiasm import parts
from chiasm.encoders import Encoder
from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Grid, Pixels
from chiasm.tokenizers import ContinuousTokenizer


class Features(ContinuousTokenizer, name="features"):
    """Pooled features of a frozen encoder (Emu2's 8 x 8 of EVA, arXiv 2312.13286; SEED-X's strips of four of Qwen's
    ViT, 2404.14396).

    It makes no pixels: an image decoder, such as `diffusion`, makes them of the features.

    Args:
        encoder: whose features they are; it is never trained.
        size: height and width in pixels of the images that are encoded.
        grid: rows and columns to which the features are averaged; null = as they are. [16, 4] of 16 x 16 averages
            strips of four.
    """

    decodes: ClassVar = False
    learns: ClassVar = False

    def __init__(self, *, encoder: Encoder, size: Pixels = 224, grid: Grid | None = None):
        super().__init__()
        self.encoder, self.size, self.width = encoder, size, encoder.width
        rows, columns = encoder.grid(size, size)
        self._grid = (rows, columns) if grid is None else (grid[0], grid[1])
        if self._grid[0] > rows or self._grid[1] > columns:
            raise RecipeError(
                f"image_tokenizer 'features': encoder {encoder.name!r} makes {rows} x {columns} features of {size} "
                f"x {size} pixels, which cannot be averaged to {self._grid[0]} x {self._grid[1]}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        return self._grid

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        features = self.encoder(pixels).float()
        if features.shape[1:3] == self.grid:
            return features
        planes = rearrange(features, "n h w c -> n c h w")
        return rearrange(functional.adaptive_avg_pool2d(planes, self.grid), "n c gh gw -> n gh gw c")

    def decode(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        raise RecipeError(
            "image_tokenizer 'features' makes no pixels; use an image_decoder such as 'diffusion'"
        )

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        raise RecipeError("image_tokenizer 'features' has nothing to learn")

    def standalone(self) -> dict[str, Any]:
        own = self.encoder.standalone()
        return {"encoder": {**self.encoder.spec, **own}} if own else {}

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        decoder = parts.lookup("image_decoder", "diffusion")
        spec = {"type": decoder.name, **decoder.example(), "conditioner": {"type": "linear"}}
        return {**super().example_neighbours(), "image_decoder": spec}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "encoder": {"type": "vit", "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "size": 32},
            "size": 32,
        }
