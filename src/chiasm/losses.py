"""Losses are (sum, count) pairs by name.

Sums and counts are added over micro-batches and ranks *before* dividing, so that packing, accumulation and
world size cannot change the mathematics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A summed loss and the number of terms in the sum; `weight` scales its mean in the objective."""

    sum: Float[Tensor, ""]
    count: Float[Tensor, ""]
    weight: float = 1.0

    @staticmethod
    def of(terms: Float[Tensor, ...], weight: float = 1.0) -> Loss:
        """The loss of a tensor with one term an element."""
        return Loss(terms.sum(), torch.tensor(float(terms.numel()), device=terms.device), weight)

    @property
    def mean(self) -> Float[Tensor, ""]:
        return self.sum / self.count.clamp(min=1)


def objective(losses: dict[str, Loss], counts: dict[str, float] | None = None) -> Float[Tensor, ""]:
    """The scalar to minimise: the weighted sum of the means.

    counts: terms of each loss over *all* micro-batches and ranks of the step; without it, this batch's own.
    """
    terms = [
        loss.weight * loss.sum / max(counts[name] if counts else float(loss.count), 1.0)
        for name, loss in losses.items()
    ]
    return torch.stack(terms).sum()
