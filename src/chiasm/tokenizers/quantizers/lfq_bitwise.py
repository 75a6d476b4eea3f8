"""Lookup-free quantization with the entropy of each bit by itself."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Bits, Weight
from chiasm.tokenizers.entropy import MEAN_USE, binary_entropy
from chiasm.tokenizers.lookup_free import Signs


class BitwiseLookupFree(Signs, Indivisible, name="lfq_bitwise"):
    """Show-o's lookup-free quantization (arXiv 2408.12528); channel 0 is the highest bit of a code's number.

    The original's training is not public; the quantizer's losses are.

    Args:
        bits: of a code; there are 2^bits codes.
        commitment: weight of the loss that draws the channels to -1 and 1.
        entropy: weight of the loss that makes each bit sure in a place and even over all.
        repeated: share of the commitment that the original adds once more between the codes and the latents. The
            codes' gradient passes straight to the latents, so that this share adds to the value but is taken off
            the gradient.
    """

    def __init__(
        self, *, bits: Bits = 13, commitment: Weight = 0.1, entropy: Weight = 0.1, repeated: Weight = 0.25
    ):
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

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"bits": 4}
