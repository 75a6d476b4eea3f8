"""The entropy of choices among codes: sure in a place and even over all is how a codebook is used in full."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chiasm.nn.losses import Loss

MEAN_USE = "the entropy of the codes' mean use is that of a whole batch; set the image tokenizer's entropy: 0"
SHARPNESS = (
    0.01  # temperature of the softmax over codes, in LlamaGen's vq_model.py and all lookup-free projects
)


def choice_entropy(latents: Float[Tensor, "m c"], codebook: Float[Tensor, "k c"], weight: float) -> Loss:
    """Mean entropy of the choices minus the entropy of the mean choice, times the number of choices (LlamaGen)."""
    squares = latents.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * latents @ codebook.T
    chances = (-squares / SHARPNESS).softmax(-1)
    single = -(chances * (-squares / SHARPNESS).log_softmax(-1)).sum(-1)
    mean = chances.mean(0)
    count = torch.tensor(float(len(latents)), device=latents.device)
    return Loss(single.sum() + count * (mean * (mean + 1e-5).log()).sum(), count, weight)


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
    low_bits = logits.shape[1] // 2
    low, high = _chances(logits[:, :low_bits]), _chances(logits[:, low_bits:])
    return (high.T @ low).flatten() / len(logits)


def _chances(logits: Float[Tensor, "m c"]) -> Float[Tensor, "m k"]:
    """Chances of all codes of a few bits, channel 0 the lowest bit."""
    joint = torch.ones(len(logits), 1, device=logits.device, dtype=logits.dtype)
    for bit in logits.unbind(1):
        one = bit.sigmoid()[:, None]
        zero = (-bit).sigmoid()[:, None]
        joint = torch.cat([joint * zero, joint * one], 1)
    return joint
