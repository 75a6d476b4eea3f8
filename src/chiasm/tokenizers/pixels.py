"""Patches of an image as they are."""

from __future__ import annotations

from typing import Any, ClassVar

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Pixels
from chiasm.tokenizers import ContinuousTokenizer


class PixelPatches(ContinuousTokenizer, name="pixels"):
    """No tokenizer: the vector of a patch is its pixels, from -1 to 1, in the order row, column, colour.

    Args:
        size: height and width of an image in pixels.
        patch_size: side of a patch in pixels.
    """

    learns: ClassVar = False

    def __init__(self, *, size: Pixels = 64, patch_size: Pixels = 8):
        super().__init__()
        if size % patch_size:
            raise RecipeError(
                f"image_tokenizer 'pixels' cannot cut {size} x {size} pixels into patches of {patch_size}; choose "
                f"a size that {patch_size} divides"
            )
        self.size, self.patch_size, self.width = size, patch_size, 3 * patch_size**2

    @property
    def grid(self) -> tuple[int, int]:
        return self.size // self.patch_size, self.size // self.patch_size

    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns = self.grid
        patches = rearrange(pixels, "n c (gh p) (gw q) -> n gh gw (p q c)", gh=rows, gw=columns)
        return 2 * patches - 1

    def decode(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        patches = ((vectors + 1) / 2).clamp(0, 1)
        return rearrange(
            patches, "n gh gw (p q c) -> n c (gh p) (gw q)", p=self.patch_size, q=self.patch_size
        )

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        raise RecipeError("image_tokenizer 'pixels' has nothing to learn")

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32, "patch_size": 8}
