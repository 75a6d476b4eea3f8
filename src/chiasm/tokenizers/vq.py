"""The convolutional VQ-VAE: a picture as one small grid of codes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.critics import Critic, criticised
from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Batches, CodebookSize, Decay, Depth, Pixels, Weight, Width
from chiasm.tokenizers import ImageTokenizer
from chiasm.tokenizers.moving_average import VectorQuantizer

GROUPS = 8  # of the group norms; channels are a multiple of it
DIFFERS = 0.03  # of [0, 1]: a pixel this far from the median colour is foreground


class VQ(ImageTokenizer, name="vq"):
    """VQ-VAE with a moving-average codebook (arXiv 1711.00937, 1906.00446), shaped for speed.

    A picture is folded into patches of four pixels at once, since full resolution is where a convolution costs
    most and learns least; then resolution halves while channels grow. Features have a fixed length (their codes
    are free), and for the first batches nothing is quantized, so that the codes begin as cluster centres of
    features that already mean something. The reconstruction loss is the sum of the absolute and the squared
    error of pixels in [-1, 1]: the squared error alone blurs edges, the absolute error alone is slow to find
    small bright things.

    Args:
        size: height and width of the pictures in pixels.
        downsample: pixels along a code's side, a power of two; `size / downsample` codes a side.
        codebook_size: number of codes.
        code_width: length of a code's vector.
        width: channels at the resolution of the codes.
        depth: residual blocks at each resolution.
        commitment: weight of the loss that keeps the encoder near its codes.
        foreground: weight of the error where a picture differs from its commonest colour (its median).
        decay: share of the codebook's moving averages that each step keeps.
        settle: steps that are not yet quantized; at least the first is not.
        revive_after: steps without a use after which a code is given a new place; 0 = never.
        cosine: compare codes by direction only.
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
    """

    decoding = ("decoder", "critics")

    def __init__(
        self,
        *,
        size: Pixels = 96,
        downsample: Pixels = 16,
        codebook_size: CodebookSize = 512,
        code_width: Width = 32,
        width: Width = 192,
        depth: Depth = 1,
        commitment: Weight = 0.25,
        foreground: Weight = 1.0,
        decay: Decay = 0.97,
        settle: Batches = 80,
        revive_after: Batches = 20,
        cosine: bool = False,
        critics: list[Critic] = [],  # noqa: B006
    ):
        super().__init__()
        if downsample < 2 or downsample & (downsample - 1):
            raise RecipeError(
                f"image_tokenizer 'vq': downsample is {downsample}; it must be a power of two >= 2"
            )
        if size % downsample:
            raise RecipeError(f"image_tokenizer 'vq': size {size} is no multiple of downsample {downsample}")
        self.size, self.downsample, self.codebook_size = size, downsample, codebook_size
        self.commitment, self.foreground = commitment, foreground
        self.critics = nn.ModuleList(critics)

        patch = min(downsample, 4)
        levels = (downsample // patch).bit_length()
        widths = [-(-width * level // levels // GROUPS) * GROUPS for level in range(1, levels + 1)]
        self.encoder = nn.Sequential(
            Fold(patch),
            nn.Conv2d(3 * patch**2, widths[0], 3, 1, 1),
            *_blocks(widths[0], depth),
            *[layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 2, 2), *_blocks(b, depth))],
            nn.GroupNorm(GROUPS, widths[-1]),
            nn.SiLU(),
            nn.Conv2d(widths[-1], code_width, 1),
        )
        self.quantizer = VectorQuantizer(
            codebook_size, code_width, decay=decay, settle=settle, revive_after=revive_after, cosine=cosine
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(code_width, widths[-1], 3, 1, 1),
            *_blocks(widths[-1], depth + 1),
            *[
                layer
                for a, b in pairwise(reversed(widths))
                for layer in (nn.Conv2d(a, b * 4, 1), Unfold(2), *_blocks(b, depth))
            ],
            nn.GroupNorm(GROUPS, widths[0]),
            nn.SiLU(),
            nn.Conv2d(widths[0], 3 * patch**2, 3, 1, 1),
            Unfold(patch),
        )

    @property
    def grid(self) -> tuple[int, int]:
        return self.size // self.downsample, self.size // self.downsample

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n gh gw"]:
        """Codes of pictures; raises ChiasmError when they are not of the tokenizer's size."""
        return self.quantizer.encode(self._features(pixels))

    def decode(self, codes: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n 3 h w"]:
        """Pictures of codes, in [0, 1]; raises ChiasmError on codes out of range or of another grid."""
        self.check_codes(codes)
        return self._pixels(self.quantizer.vectors[codes]).clamp(0, 1)

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Reconstruction (absolute + squared error) and commitment; in training, the codebook records its use."""
        quantized = self.quantizer(self._features(pixels))
        terms = self._judged(self._pixels(quantized.vectors), pixels)
        return terms | {"commitment": Loss.of(quantized.commitment, self.commitment)}

    def decoding_losses(
        self, codes: Int[Tensor, "n gh gw"], pixels: Float[Tensor, "n 3 h w"]
    ) -> dict[str, Loss]:
        """Reconstruction (absolute + squared error)."""
        return self._judged(self._pixels(self.quantizer.vectors[codes]), pixels)

    def _judged(
        self, reconstructed: Float[Tensor, "n 3 h w"], pixels: Float[Tensor, "n 3 h w"]
    ) -> dict[str, Loss]:
        error = 2 * (reconstructed - pixels)
        reconstruction = Loss.of((error.abs() + error.square()) * foreground_weight(pixels, self.foreground))
        last: Tensor = self.decoder[-2].weight  # type: ignore[assignment]
        return criticised(self.critics, reconstructed, pixels, reconstruction, last)

    def health(self) -> dict[str, float]:
        return self.quantizer.health()

    def _features(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        self.check_pixels(pixels)
        signed = (2 * pixels - 1).contiguous(memory_format=torch.channels_last)
        features = rearrange(self.encoder(signed), "n c gh gw -> n gh gw c").float()
        return functional.normalize(features, dim=-1) * math.sqrt(features.shape[-1])

    def _pixels(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        return self.decoder(rearrange(vectors, "n gh gw c -> n c gh gw")).float() / 2 + 0.5

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32, "width": 16, "depth": 1, "codebook_size": 16, "code_width": 8, "settle": 1}


def foreground_weight(pixels: Float[Tensor, "n 3 h w"], weight: float) -> Float[Tensor, "n 1 h w"]:
    """`weight` where a picture differs from its commonest colour (its median), 1 elsewhere."""
    common = pixels.flatten(2).median(-1).values[..., None, None]
    differs = (pixels - common).abs().amax(1, keepdim=True) > DIFFERS
    return 1 + (weight - 1) * differs


class SmallResidualBlock(nn.Module):
    """Normalise, activate, convolve; mixed over the channels and added to the input."""

    def __init__(self, width: int):
        super().__init__()
        last = nn.Conv2d(width, width, 1)
        self.layers = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1), nn.SiLU(), last
        )
        with torch.no_grad():
            last.weight.mul_(0.1)  # near the identity at first, yet with a gradient everywhere

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.layers(x)


class Fold(nn.Module):
    """Patches of `side` x `side` pixels as channels; unlike PixelUnshuffle also of no pictures at all."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        return rearrange(x, "n c (h p) (w q) -> n (c p q) h w", p=self.side, q=self.side)


class Unfold(Fold):
    """Channels back to patches."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        return rearrange(x, "n (c p q) h w -> n c (h p) (w q)", p=self.side, q=self.side)


def _blocks(width: int, depth: int) -> list[nn.Module]:
    return [SmallResidualBlock(width) for _ in range(depth)]
