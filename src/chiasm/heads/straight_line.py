"""The straight way from noise to values."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor


class StraightLine:
    """The path of rectified flow (arXiv 2209.03003).

    velocity: what is predicted is values less noise; else the values.
    """

    clean = 1.0

    def __init__(self, logit_normal: bool, shift: float, velocity: bool = True):
        self.logit_normal, self.shift, self.velocity = logit_normal, shift, velocity

    def times(self, uniform: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        if self.logit_normal:
            uniform = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6)).sigmoid()
        return self._shifted(uniform)

    def noisy(
        self, values: Float[Tensor, "*s c"], noise: Float[Tensor, "*s c"], times: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s c"]:
        return torch.lerp(noise, values, times[..., None])

    def target(
        self, values: Float[Tensor, "*s c"], noise: Float[Tensor, "*s c"], times: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s c"]:
        return values - noise if self.velocity else values

    def steps(self, count: int) -> list[tuple[float, float]]:
        times = self._shifted(torch.linspace(0, 1, count + 1, dtype=torch.float64)).tolist()
        return list(pairwise(times))

    def random(self) -> bool:
        return False

    def advance(
        self,
        noisy: Float[Tensor, "*s c"],
        predicted: Float[Tensor, "*s c"],
        step: tuple[float, float],
        fresh: Float[Tensor, "*s c"] | None,
    ) -> Float[Tensor, "*s c"]:
        velocity = predicted if self.velocity else (predicted - noisy) / (1 - step[0])
        return noisy + (step[1] - step[0]) * velocity

    def _shifted(self, times: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Share of noise s becomes shift * s / (1 + (shift - 1) * s)."""
        share = 1 - times
        return 1 - self.shift * share / (1 + (self.shift - 1) * share)
