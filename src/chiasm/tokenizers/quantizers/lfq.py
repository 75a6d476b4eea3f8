"""Lookup-free quantization with the entropy over all codes together."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Bits, Weight
from chiasm.tokenizers.entropy import MEAN_USE, SHARPNESS, binary_entropy, mean_choice
from chiasm.tokenizers.lookup_free import Signs


class LookupFree(Signs, Indivisible, name="lfq"):
    """Open-MAGVIT2's lookup-free quantization (arXiv 2310.05737, 2409.04410): a code is the signs of channels.

    Channel 0 is the lowest bit of its number. `chiasm.tokenizers.lookup_free.split_code` cuts large codes in two.

    Args:
        bits: of a code; there are 2^bits codes.
        commitment: weight of the loss that draws the channels to -1 and 1.
        entropy: weight of the loss that makes single choices sure and their sum even.
        sure: share of the single choices' entropy in it.
        even: share of the mean choice's entropy in it.
    """

    def __init__(
        self,
        *,
        bits: Bits = 18,
        commitment: Weight = 0.25,
        entropy: Weight = 0.1,
        sure: Weight = 1.0,
        even: Weight = 1.0,
    ):
        super().__init__(bits, big_endian=False)
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

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"bits": 5}
