"""Lookup-free quantization: a code is the signs of a vector, and no codebook is stored (arXiv 2310.05737).

Which bit of a code's number belongs to which channel differs between projects, and codes numbered the wrong way
look like noise without any error: Open-MAGVIT2 takes channel 0 as the lowest bit, Show-o and lucidrains'
vector-quantize-pytorch as the highest. A vector that is exactly 0 counts as -1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.indivisible import Indivisible
from chiasm.losses import Loss
from chiasm.tokenizers.autoencoder import Quantized, Quantizer

MEAN_USE = "the entropy of the codes' mean use is that of a whole batch; set the image tokenizer's entropy: 0"
SHARPNESS = 0.01  # temperature of the softmax over codes in the entropy loss, in all three projects


class Signs(Quantizer):
    """The signs of `bits` channels. big_endian: channel 0 is the highest bit of a code's number."""

    def __init__(self, bits: int, *, big_endian: bool):
        super().__init__()
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


class LookupFree(Signs, Indivisible):
    """Open-MAGVIT2's: the entropy over all codes together (arXiv 2409.04410).

    commitment: weight of the loss that draws the channels to -1 and 1. entropy: weight of the loss that makes
    single choices sure (`sure` of it) and their sum even (`even` of it).
    """

    def __init__(
        self,
        bits: int,
        *,
        commitment: float,
        entropy: float,
        sure: float = 1.0,
        even: float = 1.0,
        big_endian: bool = False,
    ):
        super().__init__(bits, big_endian=big_endian)
        self.commitment, self.entropy, self.sure, self.even = commitment, entropy, sure, even

    def losses(self, latents: Float[Tensor, "*n c"], signs: Float[Tensor, "*n c"]) -> dict[str, Loss]:
        single, mean = self.entropies(latents.flatten(0, -2))
        count = torch.tensor(float(latents[..., 0].numel()), device=latents.device)
        return {
            "commitment": Loss.of((latents - signs).square(), self.commitment),
            "entropy": Loss(self.sure * single.sum() - self.even * count * mean, count, self.entropy),
        }

    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        return MEAN_USE if self.entropy and self.even else None

    def entropies(self, latents: Float[Tensor, "m c"]) -> tuple[Float[Tensor, " m"], Float[Tensor, ""]]:
        """Entropy of each vector's choice among all codes, and that of the mean choice."""
        plus = (4 / SHARPNESS * latents).float()
        single = binary_entropy(plus).sum(-1)
        mean = mean_choice(plus)
        return single, -(mean * (mean + 1e-5).log()).sum()


class BitwiseLookupFree(Signs, Indivisible):
    """Show-o's: the entropy of each bit by itself; channel 0 is the highest bit.

    commitment, entropy: weights, as in `LookupFree`. repeated: share of the commitment that the original adds once
    more between the codes and the latents. The codes' gradient passes straight to the latents, so that this share
    adds to the value but is taken off the gradient.
    """

    def __init__(self, bits: int, *, commitment: float, entropy: float, repeated: float = 0.25):
        super().__init__(bits, big_endian=True)
        self.commitment, self.entropy, self.repeated = commitment, entropy, repeated

    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        return MEAN_USE if self.entropy else None

    def losses(self, latents: Float[Tensor, "*n c"], signs: Float[Tensor, "*n c"]) -> dict[str, Loss]:
        logits = 4 * latents.flatten(0, -2)
        chance = logits.sigmoid().mean(0)
        even = torch.special.entr(chance) + torch.special.entr(1 - chance)
        sure = binary_entropy(logits)
        count = torch.tensor(float(sure.numel()), device=latents.device)
        through = latents + (signs - latents).detach()
        again = (through - latents.detach()).square()
        return {
            "commitment": Loss.of((latents - signs).square() + self.repeated * again, self.commitment),
            "entropy": Loss(sure.sum() - count * even.mean(), count, self.entropy),
        }


class ProjectedLookupFree(Signs, Indivisible):
    """vector-quantize-pytorch's: `width` channels are projected to the bits and back; channel 0 is the highest bit.

    commitment, entropy: weights, as in `LookupFree`. diversity: how much an even use counts beside sure choices.
    soft_clamp: bound of the projected channels (0 = none). scale: the size of a code's channels.
    spherical: channels and codes are of the length `scale` (binary spherical quantization, arXiv 2406.07548).
    offset: the entropy loss is moved up by it and kept positive by a softplus; None = not.
    """

    def __init__(
        self,
        width: int,
        bits: int,
        *,
        commitment: float,
        entropy: float,
        diversity: float,
        soft_clamp: float,
        sharpness: float = SHARPNESS,
        scale: float = 1.0,
        spherical: bool = False,
        offset: float | None = None,
    ):
        super().__init__(bits, big_endian=True)
        self.commitment, self.entropy, self.diversity = commitment, entropy, diversity
        self.soft_clamp, self.sharpness = soft_clamp, sharpness
        self.scale, self.spherical, self.offset = scale, spherical, offset
        projects = width != bits
        self.project_in = nn.Linear(width, bits) if projects else nn.Identity()
        self.project_out = nn.Linear(bits, width) if projects else nn.Identity()

    def encode(self, latents: Float[Tensor, "*n c"]) -> Int[Tensor, "*n"]:
        return super().encode(self.project_in(latents))

    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
        return self.project_out(self._signs(codes))

    def inner(self, latents: Float[Tensor, "*n c"]) -> Float[Tensor, "*n b"]:
        """The channels whose signs are the code."""
        inner = self.project_in(latents)
        if self.soft_clamp:
            inner = (inner / self.soft_clamp).tanh() * self.soft_clamp
        return self._on_sphere(inner)

    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        inner = self.inner(latents)
        codes = super().encode(inner)
        signs = self._signs(codes)
        made = self.project_out(inner + (signs - inner).detach())
        return Quantized(made, codes, self.losses(inner, signs))

    def losses(self, latents: Float[Tensor, "*n c"], signs: Float[Tensor, "*n c"]) -> dict[str, Loss]:
        single, mean = self.entropies(latents.flatten(0, -2))
        count = torch.tensor(float(len(single)), device=latents.device)
        entropy = single.sum() - self.diversity * count * mean
        if self.offset is not None:
            entropy = count * functional.softplus(entropy / count + self.offset)
        return {
            "commitment": Loss.of((latents - signs).square(), self.commitment),
            "entropy": Loss(entropy, count, self.entropy),
        }

    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        return MEAN_USE if self.entropy and (self.diversity or self.offset is not None) else None

    def entropies(self, latents: Float[Tensor, "m c"]) -> tuple[Float[Tensor, " m"], Float[Tensor, ""]]:
        """As in `LookupFree`, but chances below 1e-5 count as 1e-5 within the logarithm."""
        codes = self._signs(torch.arange(2**self.bits, device=latents.device))
        chances = (2 / self.sharpness * latents @ codes.T).softmax(-1)
        mean = chances.mean(0)
        return -(chances * _clamped_log(chances)).sum(-1), -(mean * _clamped_log(mean)).sum()

    def _signs(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n b"]:
        return self._on_sphere(self.scale * super().vectors(codes))

    def _on_sphere(self, channels: Float[Tensor, "*n b"]) -> Float[Tensor, "*n b"]:
        return self.scale * functional.normalize(channels, dim=-1) if self.spherical else channels


def binary_entropy(logits: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Entropy of a choice between two, in nats."""
    chance = logits.sigmoid()
    return -(chance * functional.logsigmoid(logits) + (1 - chance) * functional.logsigmoid(-logits))


def mean_choice(logits: Float[Tensor, "m c"]) -> Float[Tensor, " k"]:
    """Mean over the vectors of their chances of all 2^c codes, the channels' logits given.

    A code's chance is the product of its bits', so that the chances of one half of the bits times those of the
    other, summed over the vectors, is one product of two thin matrices: 2^18 codes need m x 2^9 numbers twice, not
    m x 2^18 as in the original.
    """
    half = logits.shape[1] // 2
    low, high = _chances(logits[:, :half]), _chances(logits[:, half:])
    return (high.T @ low).flatten() / len(logits)


def _chances(logits: Float[Tensor, "m c"]) -> Float[Tensor, "m k"]:
    """Chances of all codes of a few bits, channel 0 the lowest bit."""
    made = torch.ones(len(logits), 1, device=logits.device, dtype=logits.dtype)
    for bit in logits.unbind(1):
        one = bit.sigmoid()[:, None]
        zero = (-bit).sigmoid()[:, None]
        made = torch.cat([made * zero, made * one], 1)
    return made


def _clamped_log(chances: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return chances.clamp(min=1e-5).log()


def split_code(codes: Int[Tensor, "*n"], bits: Sequence[int]) -> list[Int[Tensor, "*n"]]:
    """Codes as several smaller ones, the lowest bits first (Open-MAGVIT2's two sub-tokens of 6 and 12 bits)."""
    made = []
    for count in bits:
        made.append(codes & (2**count - 1))
        codes = codes >> count
    return made


def join_code(parts: Sequence[Int[Tensor, "*n"]], bits: Sequence[int]) -> Int[Tensor, "*n"]:
    """`split_code` reversed."""
    made, place = torch.zeros_like(parts[0]), 0
    for part, count in zip(parts, bits, strict=True):
        made, place = made | (part << place), place + count
    return made
