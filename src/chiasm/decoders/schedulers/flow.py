"""Rectified flow: straight lines between images and noise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.decoders.schedulers import Normal, Sampler, Scheduler
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Positive

LAST = 1000.0  # the time of noise, as of the other schedulers


class FlowScheduler(Scheduler, name="flow"):
    """Flow matching (arXiv 2210.02747) with Euler steps; the denoiser predicts noise minus image.

    Args:
        shift: how much more of the time is spent near the noise, for large images (arXiv 2403.03206); 1 = none.
    """

    def __init__(self, *, shift: Positive = 1.0):
        self.shift = shift

    def sampler(self, steps: int, device: torch.device | str = "cpu") -> Sampler:
        return FlowSampler(self.times(torch.linspace(1, 0, steps + 1, device=device)))

    def times(self, uniform: Float[Tensor, " n"]) -> Tensor:
        return LAST * self.shift * uniform / (1 + (self.shift - 1) * uniform)

    def noised(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Tensor
    ) -> Float[Tensor, "n c h w"]:
        share = (times / LAST).view(-1, *[1] * (clean.ndim - 1)).to(clean.dtype)
        return (1 - share) * clean + share * noise

    def target(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Tensor
    ) -> Float[Tensor, "n c h w"]:
        return noise - clean

    def min_snr_weights(self, times: Tensor, bound: float) -> Float[Tensor, " n"]:
        raise RecipeError(
            "scheduler 'flow' has no min-SNR weights; set min_snr: null, or take another scheduler"
        )


class FlowSampler:
    """A generation along a flow. bounds: the times from noise, LAST, to the image, 0."""

    start = 1.0

    def __init__(self, bounds: Float[Tensor, " s"]):
        self.times, self._steps = bounds[:-1], iter(bounds.diff() / LAST)

    def scaled(self, x: Float[Tensor, "n c h w"], time: Tensor) -> Float[Tensor, "n c h w"]:
        return x

    def step(
        self,
        predicted: Float[Tensor, "n c h w"],
        time: Tensor,
        x: Float[Tensor, "n c h w"],
        normal: Normal,
    ) -> Float[Tensor, "n c h w"]:
        return x + next(self._steps) * predicted
