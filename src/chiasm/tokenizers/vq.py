"""The convolutional VQ-VAE: a picture as one small grid of codes."""

from __future__ import annotations

from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.errors import ChiasmError, RecipeError
from chiasm.losses import Loss
from chiasm.tokenizers import ImageTokenizer
from chiasm.tokenizers.quantizer import VectorQuantizer


class VQ(ImageTokenizer, name="vq"):
    """VQ-VAE with a moving-average codebook (arXiv 1711.00937, 1906.00446), shaped for speed.

    A picture is folded into patches at once, channels double where resolution halves, and the residual blocks
    stand at the resolution of the codes only: full resolution is where a convolution costs most and learns
    least. The reconstruction loss is the sum of the absolute and the squared error: the squared error alone
    blurs edges, the absolute error alone is slow to find small bright things.

    Args:
        size: height and width of the pictures in pixels.
        downsample: pixels along a code's side, a power of two; `size / downsample` codes a side.
        codebook_size: number of codes.
        code_width: length of a code's vector.
        width: channels at the resolution of the codes.
        depth: residual blocks at the resolution of the codes, in the encoder and in the decoder.
        commitment: weight of the loss that keeps the encoder near its codes. The paper's 0.25 stands beside
            an error divided by the pixels' variance; beside the plain error it would drown the picture.
        decay: share of the codebook's moving averages that each batch keeps.
        revive_after: batches without a use after which a code is given a new place; 0 = never.
        cosine: compare codes by direction only.
    """

    def __init__(
        self,
        *,
        size: int = 96,
        downsample: int = 16,
        codebook_size: int = 512,
        code_width: int = 32,
        width: int = 128,
        depth: int = 1,
        commitment: float = 0.05,
        decay: float = 0.99,
        revive_after: int = 20,
        cosine: bool = False,
    ):
        super().__init__()
        if downsample < 2 or downsample & (downsample - 1):
            raise RecipeError(
                f"image_tokenizer 'vq': downsample is {downsample}; it must be a power of two >= 2"
            )
        if size % downsample:
            raise RecipeError(f"image_tokenizer 'vq': size {size} is no multiple of downsample {downsample}")
        self.size, self.downsample, self.codebook_size = size, downsample, codebook_size
        self.commitment = commitment

        patch = min(downsample, 4)
        halvings = (downsample // patch).bit_length() - 1
        widths = [min(width, max(width >> i, 32)) for i in reversed(range(halvings + 1))]
        down = [nn.Sequential(nn.SiLU(), nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise(widths)]
        self.encoder = nn.Sequential(
            nn.Conv2d(3, widths[0], patch + 2, patch, 1),
            *down,
            *[ResidualBlock(width) for _ in range(depth)],
            nn.SiLU(),
            nn.Conv2d(width, code_width, 1),
        )
        self.quantizer = VectorQuantizer(
            codebook_size, code_width, decay=decay, revive_after=revive_after, cosine=cosine
        )
        up = [Upsample(a, b, 2) for a, b in pairwise(reversed(widths))]
        self.decoder = nn.Sequential(
            nn.Conv2d(code_width, width, 3, 1, 1),
            *[ResidualBlock(width) for _ in range(depth)],
            *up,
            Upsample(widths[0], 3, patch),
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
        if tuple(codes.shape[1:]) != self.grid:
            raise ChiasmError(f"codes of shape {tuple(codes.shape)} given to a tokenizer of grid {self.grid}")
        if codes.numel() and not (codes.min() >= 0 and codes.max() < self.codebook_size):
            raise ChiasmError(
                f"codes from {int(codes.min())} to {int(codes.max())} given to a tokenizer of "
                f"{self.codebook_size} codes (0 to {self.codebook_size - 1})"
            )
        return self._pixels(self.quantizer.vectors[codes]).clamp(0, 1)

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Reconstruction (absolute + squared error) and commitment; in training, updates the codebook."""
        quantized = self.quantizer(self._features(pixels))
        error = self._pixels(quantized.vectors) - pixels
        return {
            "reconstruction": Loss.of(error.abs() + error.square()),
            "commitment": Loss.of(quantized.commitment, self.commitment),
        }

    def health(self) -> dict[str, float]:
        return self.quantizer.health()

    def _features(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        if tuple(pixels.shape[1:]) != (3, self.size, self.size):
            raise ChiasmError(
                f"pictures of shape {tuple(pixels.shape[1:])} given to a tokenizer of "
                f"{(3, self.size, self.size)}"
            )
        signed = (2 * pixels - 1).contiguous(memory_format=torch.channels_last)
        return rearrange(self.encoder(signed), "n c gh gw -> n gh gw c")

    def _pixels(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        return self.decoder(rearrange(vectors, "n gh gw c -> n c gh gw")).float() / 2 + 0.5


class ResidualBlock(nn.Module):
    """Normalise, activate, convolve, twice; added to the input."""

    def __init__(self, width: int):
        super().__init__()
        groups = 8 if width % 8 == 0 else 1
        last = nn.Conv2d(width, width, 3, 1, 1)
        self.layers = nn.Sequential(
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            last,
        )
        with torch.no_grad():
            last.weight.mul_(0.1)  # near the identity at first, yet with a gradient everywhere

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.layers(x)


class Upsample(nn.Sequential):
    """Activate, convolve at the low resolution, unfold each position into `factor` x `factor` of them."""

    def __init__(self, in_width: int, out_width: int, factor: int):
        convolution = nn.Conv2d(in_width, out_width * factor**2, 3, 1, 1)
        super().__init__(nn.SiLU(), convolution, nn.PixelShuffle(factor))
