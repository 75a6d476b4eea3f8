"""Shallow convolutional networks round a language model that denoises: JanusFlow's (arXiv 2411.07975).

The encoder makes features of noisy latents, which the language model reads; the decoder makes a velocity of what it
says of them, and of the encoder's own features, which go past the language model.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

LONGEST = 10_000  # of the wavelengths of a time
LAST = 1000.0  # the time of an image; noise has 0
EXPANSION = 4  # hidden width over width of a block


class NoisyCells(NamedTuple):
    """NoisyCells latents as features of their cells. time: the embedding of how far they are denoised."""

    features: Float[Tensor, "n gh gw c"]
    time: Float[Tensor, "n t"]


class FlowEncoder(nn.Module):
    """Latents and a time to features.

    Args:
        channels: of the latents.
        width: of the features.
        time_width: of a time's embedding.
        stride: side of the square of latents that becomes a cell.
        kernel: side of the square that a cell reads.
        padding: rows of zeros round the latents.
        depth: blocks behind the convolution.
        bias: of the blocks and of the time's layers.
        epsilon: of the norms.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        time_width: int,
        *,
        stride: int,
        kernel: int,
        padding: int,
        depth: int,
        bias: bool,
        epsilon: float,
    ):
        super().__init__()
        self.width = width
        self.time = nn.Sequential(
            nn.Linear(width, time_width, bias=bias), nn.SiLU(), nn.Linear(time_width, time_width, bias=bias)
        )
        self.patchify = nn.Conv2d(channels, width, kernel, stride, padding)
        self.blocks = nn.ModuleList(FlowBlock(width, time_width, bias, epsilon) for _ in range(depth))

    def forward(self, latents: Float[Tensor, "n h w c"], times: Float[Tensor, " n"]) -> NoisyCells:
        """times: from 0, noise alone, to `LAST`, the images themselves."""
        time = self.time(wave_embedding(times, self.width).to(latents.dtype))
        grid = rearrange(self.patchify(rearrange(latents, "n h w c -> n c h w")), "n c gh gw -> n gh gw c")
        for block in self.blocks:
            grid = block(grid, time)
        return NoisyCells(grid, time)


class FlowDecoder(nn.Module):
    """What the language model says of noisy latents to their velocity.

    Args:
        channels: of the latents.
        width: of what the language model says of a cell, projected.
        skipped: of the encoder's features.
        time_width: of a time's embedding.
        doublings: how often the grid becomes twice as fine.
        depth: blocks before that.
        bias: of the blocks and of the doublings.
        epsilon: of the norms.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        skipped: int,
        time_width: int,
        *,
        doublings: int,
        depth: int,
        bias: bool,
        epsilon: float,
    ):
        super().__init__()
        both = width + skipped
        self.norm = PreciseNorm(width, eps=epsilon)
        self.blocks = nn.ModuleList(FlowBlock(both, time_width, bias, epsilon) for _ in range(depth))
        ends = [both] + [skipped] * (doublings - 1) + [channels]
        self.doublings = nn.ModuleList(Doubling(a, b, bias, epsilon) for a, b in pairwise(ends))

    def forward(self, spoken: Float[Tensor, "n gh gw c"], noisy: NoisyCells) -> Float[Tensor, "n h w c2"]:
        grid = torch.cat([self.norm(spoken), noisy.features], -1)
        for block in self.blocks:
            grid = block(grid, noisy.time)
        for doubling in self.doublings:
            grid = doubling(grid)
        return grid


class FlowBlock(nn.Module):
    """A ConvNeXt V2 block (arXiv 2301.00808) whose output a time scales and shifts."""

    def __init__(self, width: int, time_width: int, bias: bool, epsilon: float):
        super().__init__()
        hidden = EXPANSION * width
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width, bias=bias)
        self.norm = PreciseNorm(width, eps=epsilon)
        self.up, self.down = nn.Linear(width, hidden, bias=bias), nn.Linear(hidden, width, bias=bias)
        self.response = ResponseNorm(hidden)
        self.modulation = nn.Linear(time_width, 2 * width, bias=bias)

    def forward(
        self, grid: Float[Tensor, "n gh gw c"], time: Float[Tensor, "n t"]
    ) -> Float[Tensor, "n gh gw c"]:
        mixed = rearrange(self.depthwise(rearrange(grid, "n h w c -> n c h w")), "n c h w -> n h w c")
        grid = grid + self.down(self.response(F.gelu(self.up(self.norm(mixed)))))
        scale, shift = self.modulation(F.silu(time))[:, None, None].chunk(2, -1)
        return grid * (1 + scale) + shift


class PreciseNorm(nn.RMSNorm):
    """A norm of the root mean square, in its weights' precision whatever it reads."""

    def forward(self, x: Float[Tensor, "*s c"]) -> Float[Tensor, "*s c"]:
        return super().forward(x.to(self.weight.dtype))


class ResponseNorm(nn.Module):
    """Scales each channel by its share of the image's whole response (global response normalisation)."""

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh gw c"]:
        response = grid.norm(dim=(1, 2), keepdim=True)
        share = response / (response.mean(-1, keepdim=True) + 1e-6)
        return grid * (1 + self.weight * share) + self.bias


class Doubling(nn.Module):
    """A grid twice as fine: every cell becomes a square of four."""

    def __init__(self, width: int, out_width: int, bias: bool, epsilon: float):
        super().__init__()
        self.norm = PreciseNorm(width, eps=epsilon)
        self.output = nn.Linear(width, 4 * out_width, bias=bias)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n h w c2"]:
        return rearrange(self.output(self.norm(grid)), "n gh gw (c r s) -> n (gh r) (gw s) c", r=2, s=2)


def wave_embedding(times: Float[Tensor, " n"], width: int) -> Float[Tensor, "n d"]:
    """Cosines and sines of times, from a wavelength of 2 pi on; a last 0 where the width is odd."""
    half = width // 2
    rates = torch.exp(-math.log(LONGEST) * torch.arange(half, device=times.device) / half)
    angles = times.float()[:, None] * rates
    return F.pad(torch.cat([angles.cos(), angles.sin()], -1), (0, width % 2))
