"""Positions of a grid that are not learnt."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.errors import RecipeError


def sine_positions(rows: int, columns: int, width: int, device: torch.device) -> Float[Tensor, "gh gw c"]:
    """Sines and cosines of each place, half of the channels by its row and half by its column (DETR).

    Places run from 0 to 2 pi whatever the size of the grid; the last one of each axis is at its end.
    """
    if width % 4:
        raise RecipeError(f"positions of two axes need a width that 4 divides, not {width}")
    half = width // 2
    lengths = 10000.0 ** (torch.arange(half // 2, device=device).float() * 2 / half)

    def axis(count: int) -> Tensor:
        places = torch.arange(1, count + 1, device=device).float() / (count + 1e-6) * 2 * math.pi
        angles = places[:, None] / lengths
        return rearrange(torch.stack([angles.sin(), angles.cos()], -1), "p e two -> p (e two)")

    down, across = axis(rows)[:, None].expand(-1, columns, -1), axis(columns).expand(rows, -1, -1)
    return torch.cat([down, across], -1)
