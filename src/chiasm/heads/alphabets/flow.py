"""A vector by a flow of its own, from noise along a straight line."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.heads import HeadContext
from chiasm.heads.denoising import TokenDenoising
from chiasm.parts.bounds import Cells, Count, Positive, Width


class Flow(TokenDenoising, name="flow"):
    """Flow matching (arXiv 2210.02747) a token, as in NextStep-1 (2508.10711), or over a whole image with order
    `whole` (Bagel, 2505.14683).

    Noise (time 0) becomes a vector (time 1) along a straight line; a small network behind the hidden state predicts
    the velocity, and Euler steps follow it.

    Args:
        steps: of a draw.
        predicts: velocity, the vector less the noise; or x, the vector itself, which a narrow network can predict
            of vectors wider than it (arXiv 2511.13720) and which points the way just as well.
        times: at which times it learns: uniform, or logit_normal, most often in the middle (arXiv 2403.03206).
        shift: above 1 more of the steps, and of the times at which it learns, stand near the noise.
        repeats: at how many times each vector is learnt in a step.
        depth: blocks of the small network; 0 = the velocity is linear in the hidden state, as in Transfusion.
        hidden: width of the small network.
    """

    def __init__(
        self,
        context: HeadContext,
        symbols: int,
        *,
        steps: Cells = 30,
        predicts: Literal["velocity", "x"] = "velocity",
        times: Literal["uniform", "logit_normal"] = "uniform",
        shift: Positive = 1.0,
        repeats: Count = 1,
        depth: Count = 3,
        hidden: Width = 1024,
    ):
        super().__init__(context, symbols, steps=steps, repeats=max(1, repeats), depth=depth, hidden=hidden)
        self.path = StraightLine(times == "logit_normal", shift, velocity=predicts == "velocity")


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
