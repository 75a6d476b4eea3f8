"""The encoder and decoder of Open-MAGVIT2, for pictures and, causal in time, for moving pictures.

Without attention, residual blocks without biases, resolution halved by convolutions and doubled by unfolding
channels; the decoder's levels are given the statistics of the codes. Submodules have the original's names
(github.com/TencentARC/SEED-Voken).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.tokenizers.convolutional import GROUPS, check_widths, norm

EPSILON = 1e-6


class Convolution(Protocol):
    """How a convolution is made: `stride` is of time, height and width."""

    def __call__(
        self, in_width: int, out_width: int, kernel: int, stride: tuple[int, int, int] = ..., bias: bool = ...
    ) -> nn.Module: ...


def flat(
    in_width: int, out_width: int, kernel: int, stride: tuple[int, int, int] = (1, 1, 1), bias: bool = True
) -> nn.Module:
    """A convolution of pictures."""
    return nn.Conv2d(in_width, out_width, kernel, stride[1:], kernel // 2, bias=bias)


class CausalConv3d(nn.Conv3d):
    """A convolution of moving pictures that sees no later frame: time is padded with zeros at the front only."""

    def __init__(
        self,
        in_width: int,
        out_width: int,
        kernel: int,
        stride: tuple[int, int, int] = (1, 1, 1),
        bias: bool = True,
    ):
        side = kernel // 2
        super().__init__(in_width, out_width, kernel, stride, (0, side, side), bias=bias)

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n d t2 h2 w2"]:
        return super().forward(functional.pad(x, (0, 0, 0, 0, self.kernel_size[0] - 1, 0)))


class MagvitEncoder(nn.Module):
    """Pixels to latents, half the resolution from each level to the next.

    width: channels of the first level. multipliers: of the width, a level each. depth: residual blocks a level.
    In moving pictures a level halves time too unless its multiplier is 1.
    """

    def __init__(
        self, width: int, multipliers: Sequence[int], depth: int, latent_width: int, convolution: Convolution
    ):
        super().__init__()
        check_widths(width, multipliers)
        self.conv_in = convolution(3, width, 3, bias=False)
        self.down = nn.ModuleList()
        channels = width
        for level, multiplier in enumerate(multipliers):
            stage = _MagvitStage(_blocks(channels, width * multiplier, depth, convolution))
            channels = width * multiplier
            if level < len(multipliers) - 1:
                stage.downsample = convolution(channels, channels, 3, (1 + (multiplier != 1), 2, 2))
            self.down.append(stage)
        self.mid_block = _blocks(channels, channels, depth, convolution)
        self.norm_out = norm(channels)
        self.conv_out = convolution(channels, latent_width, 1)

    def forward(self, x: Float[Tensor, "n 3 *d"]) -> Float[Tensor, "n c *d2"]:
        x = self.conv_in(x)
        for stage in self.down:
            x = stage(x)
        return self.conv_out(functional.silu(self.norm_out(self.mid_block(x))))


class MagvitDecoder(nn.Module):
    """Codes' vectors to pixels: `MagvitEncoder` mirrored. `up[0]` is the full resolution."""

    def __init__(
        self, width: int, multipliers: Sequence[int], depth: int, latent_width: int, convolution: Convolution
    ):
        super().__init__()
        check_widths(width, multipliers)
        channels = width * multipliers[-1]
        self.conv_in = convolution(latent_width, channels, 3)
        self.mid_block = _blocks(channels, channels, depth, convolution)
        stages, styles = [], []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            styles.append(_StyledNorm(channels, latent_width))
            stage = _MagvitStage(_blocks(channels, width * multiplier, depth, convolution))
            channels = width * multiplier
            if level > 0:
                stage.upsample = _Unfold(channels, convolution, moving=multipliers[level - 1] != 1)
            stages.append(stage)
        self.up, self.adaptive = nn.ModuleList(reversed(stages)), nn.ModuleList(reversed(styles))
        self.norm_out = norm(channels)
        self.conv_out = convolution(channels, 3, 3)

    def forward(self, vectors: Float[Tensor, "n c *d"]) -> Float[Tensor, "n 3 *d2"]:
        x = self.mid_block(self.conv_in(vectors))
        for stage, style in zip(reversed(self.up), reversed(self.adaptive), strict=True):
            x = stage(style(x, vectors))
        return self.conv_out(functional.silu(self.norm_out(x)))


class _MagvitStage(nn.Module):
    """The blocks of one resolution, and the change to the next."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Float[Tensor, "n c *d"]) -> Float[Tensor, "n e *d2"]:
        return self.upsample(self.downsample(self.block(x)))


class _Residual(nn.Module):
    def __init__(self, in_width: int, out_width: int, convolution: Convolution):
        super().__init__()
        self.norm1 = norm(in_width)
        self.conv1 = convolution(in_width, out_width, 3, bias=False)
        self.norm2 = norm(out_width)
        self.conv2 = convolution(out_width, out_width, 3, bias=False)
        if in_width != out_width:
            self.nin_shortcut = convolution(in_width, out_width, 1, bias=False)

    def forward(self, x: Float[Tensor, "n c *d"]) -> Float[Tensor, "n e *d"]:
        hidden = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        return hidden + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class _StyledNorm(nn.Module):
    """Normalises in groups; scale and shift come from deviation and mean of the codes over all positions."""

    def __init__(self, width: int, style_width: int):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=EPSILON, affine=False)
        self.gamma = nn.Linear(style_width, width)
        self.beta = nn.Linear(style_width, width)

    def forward(self, x: Float[Tensor, "n c *d"], codes: Float[Tensor, "n e *d2"]) -> Float[Tensor, "n c *d"]:
        flat_codes = codes.flatten(2)
        axes = (...,) + (None,) * (x.ndim - 2)
        scale = self.gamma((flat_codes.var(-1) + EPSILON).sqrt())[axes]
        return scale * self.norm(x) + self.beta(flat_codes.mean(-1))[axes]


class _Unfold(nn.Module):
    """Twice the resolution (and, if `moving`, frames) from as many times the channels.

    The first frame stands for itself, as in the encoder, so of the two made of it one is dropped.
    """

    def __init__(self, width: int, convolution: Convolution, moving: bool):
        super().__init__()
        self.moving = moving and convolution is not flat
        self.conv1 = convolution(width, width * (8 if self.moving else 4), 3)

    def forward(self, x: Float[Tensor, "n c *d"]) -> Float[Tensor, "n c *d2"]:
        x = self.conv1(x)
        if x.ndim == 4:
            return rearrange(x, "n (a b c) h w -> n c (h a) (w b)", a=2, b=2)
        if not self.moving:
            return rearrange(x, "n (a b c) t h w -> n c t (h a) (w b)", a=2, b=2)
        x = rearrange(x, "n (s a b c) t h w -> n c (t s) (h a) (w b)", s=2, a=2, b=2)
        return torch.cat([x[:, :, :1], x[:, :, 2:]], 2)


def _blocks(in_width: int, out_width: int, depth: int, convolution: Convolution) -> nn.Sequential:
    widths = [in_width] + [out_width] * depth
    return nn.Sequential(*(_Residual(a, b, convolution) for a, b in pairwise(widths)))
