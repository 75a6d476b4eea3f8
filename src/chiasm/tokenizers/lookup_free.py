"""Lookup-free quantization: a code is the signs of a vector, and no codebook is stored (arXiv 2310.05737).

Which bit of a code's number belongs to which channel differs between projects, and codes numbered the wrong way
look like noise without any error: Open-MAGVIT2 takes channel 0 as the lowest bit, Show-o and lucidrains'
vector-quantize-pytorch as the highest. A vector that is exactly 0 counts as -1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.nn.losses import Loss
from chiasm.tokenizers.quantizers import Quantized, Quantizer


class Signs(Quantizer):
    """The signs of `bits` channels. big_endian: channel 0 is the highest bit of a code's number."""

    def __init__(self, bits: int, *, big_endian: bool):
        super().__init__()
        self.width, self.codebook_size = bits, 2**bits
        self.bits, self.big_endian = bits, big_endian

    def encode(self, latents: Float[Tensor, "*n c"]) -> Int[Tensor, "*n"]:
        return ((latents > 0) * self._places(latents.device)).sum(-1)

    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
        return ((codes[..., None] & self._places(codes.device)) > 0) * 2.0 - 1.0

    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        codes = self.encode(latents)
        signs = self.vectors(codes).to(latents.dtype)
        return Quantized(latents + (signs - latents).detach(), codes, self.losses(latents, signs))

    def losses(self, latents: Float[Tensor, "*n c"], signs: Float[Tensor, "*n c"]) -> dict[str, Loss]:
        return {}

    def _places(self, device: torch.device) -> Int[Tensor, " c"]:
        places = 2 ** torch.arange(self.bits, device=device)
        return places.flip(0) if self.big_endian else places


def split_code(codes: Int[Tensor, "*n"], bits: Sequence[int]) -> list[Int[Tensor, "*n"]]:
    """Codes as several smaller ones, the lowest bits first (Open-MAGVIT2's two sub-tokens of 6 and 12 bits)."""
    joined = []
    for count in bits:
        joined.append(codes & (2**count - 1))
        codes = codes >> count
    return joined


def join_code(parts: Sequence[Int[Tensor, "*n"]], bits: Sequence[int]) -> Int[Tensor, "*n"]:
    """`split_code` reversed."""
    joined, place = torch.zeros_like(parts[0]), 0
    for part, count in zip(parts, bits, strict=True):
        joined, place = joined | (part << place), place + count
    return joined
