"""Noise of heads that make values of it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.errors import ChiasmError
from chiasm.heads import Sampling
from chiasm.nn.generators import Generators

_SMALLEST = 2.0**-25  # below the smallest number but 0 that `torch.rand` draws


def noise_like(uniform: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """Numbers of the standard normal distribution, each made of one of [0, 1)."""
    shares = uniform.clamp(_SMALLEST, 1 - 2 * _SMALLEST)
    return torch.special.ndtri(shares)


def first_noise(
    images: int,
    shape: tuple[int, ...],
    sampling: Sampling,
    generators: Generators | None,
    device: torch.device,
) -> Float[Tensor, "n ..."]:
    """What drawings that denoise begin as; the temperature scales it. Raises ChiasmError without generators."""
    if sampling.temperature == 0:
        return torch.zeros(images, *shape, device=device)
    if generators is None:
        raise ChiasmError(
            f"drawing at temperature {sampling.temperature} needs generators, one for each image"
        )
    return sampling.temperature * generators.normal(*shape, device=device)
