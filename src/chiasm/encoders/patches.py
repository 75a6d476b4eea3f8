"""Raw patches of pixels, without any weight."""

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.encoders import Encoder
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Pixels


class Patches(Encoder, name="patches"):
    """No encoder: the feature of a patch is its pixels, as in Fuyu-8B (www.adept.ai/blog/fuyu-8b).

    Pixels are normalised by (x - 0.5) / 0.5. Channels stand in the order row, column, colour (red, green,
    blue), as in Fuyu's checkpoint.

    Args:
        patch_size: side of a patch in pixels.
    """

    mean = deviation = 0.5

    def __init__(self, *, patch_size: Pixels = 16):
        super().__init__()
        self.patch_size = patch_size
        self.width = 3 * patch_size**2

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch_size or width % self.patch_size:
            raise RecipeError(
                f"encoder 'patches' cannot cut {height}x{width} pixels into patches of {self.patch_size}; "
                f"choose a size of view that {self.patch_size} divides"
            )
        return height // self.patch_size, width // self.patch_size

    def extra_repr(self) -> str:
        return f"patch_size={self.patch_size}"

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns = self.grid(*pixels.shape[-2:])
        return rearrange(
            (pixels - self.mean) / self.deviation, "n c (gh p) (gw q) -> n gh gw (p q c)", gh=rows, gw=columns
        )

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"patch_size": 8}
