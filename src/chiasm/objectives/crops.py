"""Random crops of pictures and changes of their colours, drawn from torch's random numbers for each picture."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chiasm.views import Size

ASPECT = (3 / 4, 4 / 3)
GREY = (0.299, 0.587, 0.114)


def random_crops(
    pixels: Float[Tensor, "n 3 h w"], size: Size, area: tuple[float, float]
) -> Float[Tensor, "n 3 h2 w2"]:
    """A crop of each picture of so large a share of its area, at `size`, mirrored half of the time."""
    n, device = len(pixels), pixels.device
    share = area[0] + (area[1] - area[0]) * torch.rand(n, device=device)
    low, high = torch.tensor(ASPECT).log().tolist()
    aspect = torch.exp(low + (high - low) * torch.rand(n, device=device))
    wide, tall = (share * aspect).sqrt().clamp(max=1), (share / aspect).sqrt().clamp(max=1)
    left, top = (
        (2 * torch.rand(n, device=device) - 1) * (1 - wide),
        (2 * torch.rand(n, device=device) - 1) * (1 - tall),
    )
    mirrored = 1 - 2 * (torch.rand(n, device=device) < 0.5).float()
    zero = torch.zeros_like(wide)
    corners = torch.stack(
        [torch.stack([wide * mirrored, zero, left], 1), torch.stack([zero, tall, top], 1)], dim=1
    )
    grid = functional.affine_grid(corners, [n, 3, *size], align_corners=False).to(pixels.dtype)
    return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def recoloured(
    pixels: Float[Tensor, "n 3 h w"], strength: float, *, blurred: float = 0.5, solarised: float = 0.0
) -> Float[Tensor, "n 3 h w"]:
    """Brightness, contrast and saturation changed, some pictures made grey, blurred or solarised (BYOL's).

    strength: of the changes of colour; 1 is DINO's. blurred, solarised: chances.
    """
    if strength == 0:
        return pixels

    def factor(most: float) -> Float[Tensor, "n 1 1 1"]:
        change = 1 + strength * most * (2 * torch.rand(len(pixels), 1, 1, 1, device=pixels.device) - 1)
        return torch.where(_tossed(pixels, 0.8), change, 1.0)

    x = pixels * factor(0.4)
    mean = _grey(x).mean(dim=(2, 3), keepdim=True)
    x = (mean + (x - mean) * factor(0.4)).clamp(0, 1)
    grey = _grey(x)
    x = torch.where(_tossed(x, 0.2 * strength), grey, grey + (x - grey) * factor(0.2)).clamp(0, 1)
    x = torch.where(_tossed(x, blurred * strength), _blur(x), x)
    return torch.where(_tossed(x, solarised * strength) & (x >= 0.5), 1 - x, x)


def _tossed(pixels: Tensor, chance: float) -> Tensor:
    return torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < chance


def _grey(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    return (pixels * torch.tensor(GREY, device=pixels.device)[:, None, None]).sum(1, keepdim=True)


def _blur(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Gaussian, of one deviation for the batch, between 0.1 and 2 pixels."""
    deviation = 0.1 + 1.9 * torch.rand((), device=pixels.device)
    offsets = torch.arange(-4, 5, device=pixels.device)
    line = torch.exp(-(offsets**2) / (2 * deviation**2))
    line = (line / line.sum()).to(pixels.dtype)
    flat = rearrange(pixels, "n c h w -> (n c) 1 h w")
    flat = functional.pad(flat, (4, 4, 4, 4), mode="replicate")
    flat = functional.conv2d(functional.conv2d(flat, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
    return rearrange(flat, "(n c) 1 h w -> n c h w", n=len(pixels))
