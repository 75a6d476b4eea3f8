"""VQ-VAE-2: coarse codes, and fine codes that know them."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Batches, CodebookSize, Decay, Depth, Pixels, Weight, Width
from chiasm.tokenizers import ImageTokenizer, join_scales, split_scales
from chiasm.tokenizers.moving_average import NearestCodes, VectorQuantizer

FACTOR = 8  # pixels along a coarse code's side; a fine code's is half of it


class VQVAE2(ImageTokenizer, name="vqvae2"):
    """Two-level VQ-VAE with moving-average codebooks (VQ-VAE-2, arXiv 1906.00446).

    A picture is `size/8` x `size/8` coarse codes, for what is where, and `size/4` x `size/4` fine ones, for
    texture. Each level has a codebook of its own; both are numbered from 0.

    Args:
        size: height and width of the pictures in pixels, a multiple of 8.
        width: channels of the convolutions.
        depth: residual blocks of each encoder and decoder.
        residual_width: channels within a residual block.
        code_width: length of a code's vector.
        codebook_size: number of codes of each level.
        commitment: weight of the loss that keeps the encoders near their codes.
        decay: share of the codebooks' moving averages that each step keeps.
        revive_after: steps without a use after which a code is given a new place; 0 = never, as published.
    """

    def __init__(
        self,
        *,
        size: Pixels = 256,
        width: Width = 128,
        depth: Depth = 2,
        residual_width: Width = 32,
        code_width: Width = 64,
        codebook_size: CodebookSize = 512,
        commitment: Weight = 0.25,
        decay: Decay = 0.99,
        revive_after: Batches = 20,
    ):
        super().__init__()
        self.codebooks = 2
        if size % FACTOR:
            raise RecipeError(f"image_tokenizer 'vqvae2': size {size} is no multiple of {FACTOR}")
        self.size, self.codebook_size, self.commitment = size, codebook_size, commitment
        blocks = depth, residual_width
        self.enc_b = _LevelEncoder(3, width, 4, *blocks)
        self.enc_t = _LevelEncoder(width, width, 2, *blocks)
        self.quantize_conv_t = nn.Conv2d(width, code_width, 1)
        self.quantize_t = VectorQuantizer(codebook_size, code_width, decay=decay, revive_after=revive_after)
        self.dec_t = _LevelDecoder(code_width, code_width, width, 2, *blocks)
        self.quantize_conv_b = nn.Conv2d(code_width + width, code_width, 1)
        self.quantize_b = VectorQuantizer(codebook_size, code_width, decay=decay, revive_after=revive_after)
        self.upsample_t = nn.ConvTranspose2d(code_width, code_width, 4, 2, 1)
        self.dec = _LevelDecoder(2 * code_width, 3, width, 4, *blocks)

    @property
    def grid(self) -> tuple[int, int]:
        return 1, sum(rows * columns for rows, columns in self.scales)

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        coarse = self.size // FACTOR
        return (coarse, coarse), (2 * coarse, 2 * coarse)

    def quantize(self, pixels: Float[Tensor, "n 3 h w"]) -> tuple[NearestCodes, NearestCodes]:
        """Coarse and fine codes with their vectors; in training, the codebook records its use."""
        fine = self.enc_b(2 * pixels - 1)
        coarse = self.quantize_t(_last(self.quantize_conv_t(self.enc_t(fine))))
        upsampled = self.dec_t(_first(coarse.vectors).to(fine.dtype))
        return coarse, self.quantize_b(_last(self.quantize_conv_b(torch.cat([upsampled, fine], 1))))

    def render(
        self, coarse: Float[Tensor, "n h w c"], fine: Float[Tensor, "n h2 w2 c"]
    ) -> Float[Tensor, "n 3 h8 w8"]:
        """Pixels of codes' vectors, not yet cut to [0, 1]."""
        both = torch.cat([self.upsample_t(_first(coarse)), _first(fine)], 1)
        return self.dec(both).float() / 2 + 0.5

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n 1 l"]:
        """Codes of pictures; raises ChiasmError when they are not of the tokenizer's size."""
        self.check_pixels(pixels)
        learning = self.training
        try:
            coarse, fine = self.eval().quantize(pixels)
        finally:
            self.train(learning)
        return join_scales([coarse.codes, fine.codes])

    def decode(self, codes: Int[Tensor, "n 1 l"]) -> Float[Tensor, "n 3 h w"]:
        """Pictures of codes, in [0, 1]; raises ChiasmError on codes out of range or of another grid."""
        self.check_codes(codes)
        coarse, fine = split_scales(codes, self.scales)
        return self.render(self.quantize_t.vectors[coarse], self.quantize_b.vectors[fine]).clamp(0, 1)

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Squared error of pixels in [-1, 1], and the commitments of both levels."""
        self.check_pixels(pixels)
        coarse, fine = self.quantize(pixels)
        return {
            "reconstruction": Loss.of(4 * (self.render(coarse.vectors, fine.vectors) - pixels).square()),
            "commitment_coarse": Loss.of(coarse.commitment, self.commitment),
            "commitment_fine": Loss.of(fine.commitment, self.commitment),
        }

    def health(self) -> dict[str, float]:
        """Both codebooks' figures."""
        levels = {"coarse": self.quantize_t, "fine": self.quantize_b}
        return {f"{key}_{name}": value for name, q in levels.items() for key, value in q.health().items()}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "size": 32,
            "width": 16,
            "depth": 1,
            "residual_width": 8,
            "code_width": 8,
            "codebook_size": 16,
        }


class _ReLUResidual(nn.Module):
    def __init__(self, width: int, inner_width: int):
        super().__init__()
        self.conv = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, inner_width, 3, 1, 1), nn.ReLU(), nn.Conv2d(inner_width, width, 1)
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.conv(x)


class _LevelEncoder(nn.Module):
    """Halves the resolution once (`stride` 2) or twice (4)."""

    def __init__(self, in_width: int, width: int, stride: int, depth: int, residual_width: int):
        super().__init__()
        down = [nn.Conv2d(in_width, width // 2, 4, 2, 1), nn.ReLU()]
        if stride == 4:
            down += [nn.Conv2d(width // 2, width, 4, 2, 1), nn.ReLU()]
        last = nn.Conv2d(width if stride == 4 else width // 2, width, 3, 1, 1)
        residual = [_ReLUResidual(width, residual_width) for _ in range(depth)]
        self.blocks = nn.Sequential(*down, last, *residual, nn.ReLU())

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        return self.blocks(x)


class _LevelDecoder(nn.Module):
    """Doubles the resolution once (`stride` 2) or twice (4)."""

    def __init__(
        self, in_width: int, out_width: int, width: int, stride: int, depth: int, residual_width: int
    ):
        super().__init__()
        residual = [_ReLUResidual(width, residual_width) for _ in range(depth)]
        if stride == 4:
            first = nn.ConvTranspose2d(width, width // 2, 4, 2, 1)
            up: list[nn.Module] = [first, nn.ReLU(), nn.ConvTranspose2d(width // 2, out_width, 4, 2, 1)]
        else:
            up = [nn.ConvTranspose2d(width, out_width, 4, 2, 1)]
        self.blocks = nn.Sequential(nn.Conv2d(in_width, width, 3, 1, 1), *residual, nn.ReLU(), *up)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        return self.blocks(x)


def _last(grid: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w c"]:
    return rearrange(grid, "n c h w -> n h w c")


def _first(grid: Float[Tensor, "n h w c"]) -> Float[Tensor, "n c h w"]:
    return rearrange(grid, "n h w c -> n c h w")
