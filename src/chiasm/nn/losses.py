"""Losses are (sum, count) pairs by name.

Sums and counts are added over micro-batches and ranks *before* dividing, so that packing, accumulation and
world size cannot change the mathematics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits that are held in float32 at once: what stays in a CPU's cache; on a GPU, enough to keep it busy.
_CHUNK = {"cpu": 2**19}
_GPU_CHUNK = 2**26


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

    def __add__(self, other: Loss) -> Loss:
        """Terms of both, under one mean."""
        return Loss(self.sum + other.sum, self.count + other.count, self.weight)

    @property
    def mean(self) -> Float[Tensor, ""]:
        return self.sum / self.count.clamp(min=1)


def added(losses: Mapping[str, Loss], more: Mapping[str, Loss]) -> dict[str, Loss]:
    """All of these losses; those of one name have the terms of both."""
    return {
        **losses,
        **{name: losses[name] + loss if name in losses else loss for name, loss in more.items()},
    }


def objective(losses: dict[str, Loss], counts: dict[str, float] | None = None) -> Float[Tensor, ""]:
    """The scalar to minimise: the weighted sum of the means.

    counts: terms of each loss over *all* micro-batches and ranks of the step; without it, this batch's own.
    """
    terms = [
        loss.weight * loss.sum / max(counts[name] if counts else float(loss.count), 1.0)
        for name, loss in losses.items()
    ]
    return torch.stack(terms).sum()


def cross_entropy(
    logits: Float[Tensor, "m v"], labels: Int[Tensor, " m"], weights: Float[Tensor, " m"] | None = None
) -> Float[Tensor, ""]:
    """The sum of -log p(label), each times its weight, in float32 whatever the logits are.

    Chunk by chunk, so that no second copy of the logits is ever whole: with a large vocabulary they are the
    largest tensor of a training step, and float32, softmax and gradient would be three more of them.
    """
    return _CrossEntropy.apply(logits, labels, weights)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Float[Tensor, "m v"],
        labels: Int[Tensor, " m"],
        weights: Float[Tensor, " m"] | None,
    ) -> Float[Tensor, ""]:
        ctx.rows = max(1, _CHUNK.get(logits.device.type, _GPU_CHUNK) // logits.shape[1])
        terms, scales = [], []
        for part, label in zip(logits.split(ctx.rows), labels.split(ctx.rows), strict=True):
            scale = part.float().logsumexp(1)
            terms.append(scale - part.gather(1, label[:, None])[:, 0])
            scales.append(scale)
        ctx.save_for_backward(logits, labels, torch.cat(scales), weights)
        total = torch.cat(terms)
        return (total if weights is None else total * weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Float[Tensor, ""]) -> tuple[Float[Tensor, "m v"], None, None]:
        logits, labels, scales, weights = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        chunks = (tensor.split(ctx.rows) for tensor in (logits, gradient, labels, scales))
        for part, out, label, scale in zip(*chunks, strict=True):
            share = (part.float() - scale[:, None]).exp_()
            share[torch.arange(len(label), device=label.device), label] -= 1
            out.copy_(share.mul_(upstream))
        if weights is not None:
            gradient *= weights[:, None]
        return gradient, None, None
