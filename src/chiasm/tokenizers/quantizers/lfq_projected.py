"""Lookup-free quantization of channels that are projected to the bits and back; also spherical."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Bits, Positive, Weight, WidthOrZero
from chiasm.tokenizers.entropy import MEAN_USE, SHARPNESS
from chiasm.tokenizers.lookup_free import Signs
from chiasm.tokenizers.quantizers import Quantized


class ProjectedLookupFree(Signs, Indivisible, name="lfq_projected"):
    """vector-quantize-pytorch's lookup-free quantization; channel 0 is the highest bit of a code's number.

    Args:
        bits: of a code; there are 2^bits codes.
        width: channels between which and the bits is projected; 0 = one a bit, without projections.
        commitment: weight of the loss that draws the channels to -1 and 1.
        entropy: weight of the loss that makes single choices sure and their sum even.
        diversity: how much an even use counts in it beside sure choices.
        soft_clamp: bound of the projected channels; 0 = none.
        scale: the size of a code's channels.
        spherical: channels and codes have the length `scale` (binary spherical quantization, arXiv 2406.07548).
        offset: the entropy loss is moved up by it and kept positive by a softplus; null = not.
    """

    def __init__(
        self,
        *,
        bits: Bits = 10,
        width: WidthOrZero = 0,
        commitment: Weight = 0.25,
        entropy: Weight = 0.1,
        diversity: Weight = 1.0,
        soft_clamp: Weight = 0.0,
        scale: Positive = 1.0,
        spherical: bool = False,
        offset: Weight | None = None,
    ):
        super().__init__(bits, big_endian=True)
        self.width = width or bits
        self.commitment, self.entropy, self.diversity = commitment, entropy, diversity
        self.soft_clamp, self.scale, self.spherical, self.offset = soft_clamp, scale, spherical, offset
        projects = self.width != bits
        self.project_in = nn.Linear(self.width, bits) if projects else nn.Identity()
        self.project_out = nn.Linear(bits, self.width) if projects else nn.Identity()

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
        vectors = self.project_out(inner + (signs - inner).detach())
        return Quantized(vectors, codes, self.losses(inner, signs))

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
        chances = (2 / SHARPNESS * latents @ codes.T).softmax(-1)
        mean = chances.mean(0)
        return -(chances * _clamped_log(chances)).sum(-1), -(mean * _clamped_log(mean)).sum()

    def _signs(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n b"]:
        return self._on_sphere(self.scale * super().vectors(codes))

    def _on_sphere(self, channels: Float[Tensor, "*n b"]) -> Float[Tensor, "*n b"]:
        return self.scale * functional.normalize(channels, dim=-1) if self.spherical else channels

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"bits": 4, "width": 6}


def _clamped_log(chances: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return chances.clamp(min=1e-5).log()
