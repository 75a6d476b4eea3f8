"""What features show of a region."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def region_means(grid: Float[Tensor, "gh gw c"], masks: Bool[Tensor, "m h w"]) -> Float[Tensor, "m c"]:
    """The mean of a grid of features over the pixels of each mask, between features by bilinear interpolation.

    A pixel's place is the share of the image above it and to its left, and the corners of the image lie on the
    first and the last feature, as in PSALM (arXiv 2403.14598).
    """
    features = rearrange(grid, "gh gw c -> 1 c gh gw")
    size = torch.tensor(masks.shape[1:], device=grid.device)
    means = []
    for mask in masks:
        places = (mask.nonzero() / size).flip(1)  # x and y
        points = rearrange(2 * places - 1, "p two -> 1 1 p two").to(grid.dtype)
        means.append(functional.grid_sample(features, points, align_corners=True).mean((0, 2, 3)))
    return torch.stack(means)
