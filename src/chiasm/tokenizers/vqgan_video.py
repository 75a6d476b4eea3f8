"""Emu3's tokenizer of pictures and moving pictures."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.critics import Critic
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Cells, Count, Depth, Heads, Multipliers, Pixels, Width
from chiasm.tokenizers.autoencoder import VideoAutoencoder
from chiasm.tokenizers.convolutional import ConvDecoder, ConvEncoder, norm
from chiasm.tokenizers.quantizers import Quantizer


class VideoVQGAN(VideoAutoencoder, name="vqgan_video"):
    """Emu3's vision tokenizer (arXiv 2409.18869): a VQGAN frame by frame, with causal convolutions over time.

    Time is halved behind the frames' encoder and doubled before their decoder, whose normalisations are given the
    codes of their place. A picture is one frame repeated as often as time is downsampled. Emu3's quantizer is
    `nearest`, of 32,768 codes of 4 channels. The original's training is not public; here it is VQGAN's.

    Args:
        size: height and width of the frames in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        depth: residual blocks a level, and behind the convolutions over time.
        attention_levels: levels (from 0, full resolution) with self-attention; the lowest has it always.
        heads: of every self-attention.
        downsample_time: frames of one grid of codes, a power of two.
        quantizer: what makes codes of the latents; the encoder puts out as many channels as it takes.
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
    """

    def __init__(
        self,
        *,
        size: Pixels = 512,
        width: Width = 256,
        multipliers: Multipliers = [1, 2, 2, 4],  # noqa: B006
        depth: Depth = 2,
        attention_levels: list[Count] = [3],  # noqa: B006
        heads: Heads = 1,
        downsample_time: Cells = 4,
        quantizer: Quantizer,
        critics: list[Critic] = [],  # noqa: B006
    ):
        if downsample_time & (downsample_time - 1):
            raise RecipeError(
                f"image_tokenizer 'vqgan_video': downsample_time is {downsample_time}; it must be a power of two"
            )
        super().__init__(size=size, factor=2 ** (len(multipliers) - 1), quantizer=quantizer, critics=critics)
        self.still, code_width = downsample_time, quantizer.width
        halvings = downsample_time.bit_length() - 1
        self.encoder = _VideoEncoder(width, multipliers, depth, code_width, attention_levels, halvings, heads)
        self.decoder = _VideoDecoder(width, multipliers, depth, code_width, attention_levels, halvings, heads)
        self.quant_conv = _CausalConv3d(code_width, code_width, (3, 1, 1))
        self.post_quant_conv = _CausalConv3d(code_width, code_width, (3, 1, 1))

    def time_grids(self, frames: int) -> int:
        if frames < 1 or frames % self.still:
            raise RecipeError(
                f"image_tokenizer {self.name!r} makes clips of {self.still} k frames, not of {frames}"
            )
        return frames // self.still

    def video_latents(self, video: Float[Tensor, "n t 3 h w"]) -> Float[Tensor, "n u gh gw c"]:
        return rearrange(self.quant_conv(self.encoder(2 * video - 1)), "n c u gh gw -> n u gh gw c")

    def render_video(self, vectors: Float[Tensor, "n u gh gw c"]) -> Float[Tensor, "n t 3 h w"]:
        codes = rearrange(vectors, "n u gh gw c -> n c u gh gw")
        return self.decoder(self.post_quant_conv(codes), codes).float() / 2 + 0.5

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "size": 32,
            "width": 32,
            "multipliers": [1, 1, 1],
            "depth": 1,
            "attention_levels": [2],
            "quantizer": {"type": "nearest", "codebook_size": 16, "width": 4},
        }


class _CausalConv3d(nn.Conv3d):
    """Keeps height and width; time is padded with two frames of zeros at the front, whatever the kernel."""

    def __init__(self, in_width: int, out_width: int, kernel: tuple[int, int, int], stride: int = 1):
        super().__init__(in_width, out_width, kernel, (stride, 1, 1), (0, kernel[1] // 2, kernel[2] // 2))

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n d t2 h w"]:
        return super().forward(functional.pad(x, (0, 0, 0, 0, 2, 0)))


class _Residual3d(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1 = nn.BatchNorm3d(width)
        self.conv1 = _CausalConv3d(width, width, (3, 3, 3))
        self.norm2 = nn.BatchNorm3d(width)
        self.conv2 = _CausalConv3d(width, width, (3, 3, 3))

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n c t h w"]:
        hidden = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(hidden)))


class _VideoEncoder(ConvEncoder):
    def __init__(
        self,
        width: int,
        multipliers: list[int],
        depth: int,
        latent_width: int,
        attention: list[int],
        halvings: int,
        heads: int,
    ):
        super().__init__(width, multipliers, depth, latent_width, attention, heads=heads)
        halve = [_CausalConv3d(latent_width, latent_width, (4, 3, 3), 2) for _ in range(halvings)]
        self.time_conv = nn.ModuleList(halve)
        self.time_res_stack = nn.Sequential(*(_Residual3d(latent_width) for _ in range(depth)))

    def forward(self, video: Float[Tensor, "n t 3 h w"]) -> Float[Tensor, "n c u gh gw"]:
        frames = super().forward(rearrange(video, "n t c h w -> (n t) c h w"))
        x = rearrange(frames, "(n t) c h w -> n c t h w", n=len(video))
        for halve in self.time_conv:
            x = functional.silu(halve(x))
        return self.time_res_stack(x)


class _VideoDecoder(ConvDecoder):
    def __init__(
        self,
        width: int,
        multipliers: list[int],
        depth: int,
        latent_width: int,
        attention: list[int],
        doublings: int,
        heads: int,
    ):
        normalise = partial(_ToldNorm, code_width=latent_width)
        super().__init__(width, multipliers, depth + 1, latent_width, attention, True, normalise, heads=heads)
        self.time_res_stack = nn.Sequential(*(_Residual3d(latent_width) for _ in range(depth)))
        double = [_CausalConv3d(latent_width, latent_width, (3, 3, 3)) for _ in range(doublings)]
        self.time_conv = nn.ModuleList(double)

    def forward(
        self, latents: Float[Tensor, "n c u gh gw"], *codes: Float[Tensor, "n c u gh gw"]
    ) -> Float[Tensor, "n t 3 h w"]:
        # The codes go the same way through time as the latents, in one batch with them.
        x = self.time_res_stack(torch.cat([latents, *codes]))
        for double in self.time_conv:
            x = functional.silu(double(x.repeat_interleave(2, 2)))
        parts = x.split(len(latents))
        frames = super().forward(*(rearrange(part, "n c t h w -> (n t) c h w") for part in parts))
        return rearrange(frames, "(n t) c h w -> n t c h w", n=len(latents))


class _ToldNorm(nn.Module):
    """Normalises in groups; scale and shift come from the code of each place."""

    def __init__(self, width: int, code_width: int):
        super().__init__()
        self.norm_layer = norm(width)
        self.conv_y = nn.Conv2d(code_width, width, 1)
        self.conv_b = nn.Conv2d(code_width, width, 1)

    def forward(
        self, x: Float[Tensor, "n c h w"], codes: Float[Tensor, "n d gh gw"]
    ) -> Float[Tensor, "n c h w"]:
        code_values = functional.interpolate(codes, size=x.shape[-2:], mode="nearest")
        return self.norm_layer(x) * self.conv_y(code_values) + self.conv_b(code_values)
