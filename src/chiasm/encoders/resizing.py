"""Resizing as PIL does it, of pixels and of tables of positions."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def antialiased(
    x: Float[Tensor, "n c h w"], size: tuple[int, int], mode: Literal["bilinear", "bicubic"]
) -> Float[Tensor, "n c h2 w2"]:
    """Resized in fp32, for which alone CPUs have a kernel, and back in the type that came."""
    resized = functional.interpolate(x.float(), size, mode=mode, antialias=True, align_corners=False)
    return resized.to(x.dtype)
