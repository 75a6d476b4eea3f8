"""A vector by a diffusion of its own."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.heads import HeadContext
from chiasm.heads.denoising import TokenDenoising
from chiasm.parts.bounds import Cells, Count, Width

LEVELS = 1000  # of noise, at which it learns
Predicted = Literal["epsilon", "v", "x"]
_MOST_BETA = 0.999  # of the cosine schedule's steps (arXiv 2102.09672)


class TokenDiffusion(TokenDenoising, name="diffusion"):
    """Diffusion a token (MAR, arXiv 2406.11838): a small network behind the hidden state takes its noise away.

    Of a thousand levels of noise a draw visits `steps`, ancestrally (DDPM, arXiv 2006.11239), with the posterior's
    own variance; at temperature 0 it adds no noise.

    Args:
        steps: of a draw, at most 1,000.
        predicts: v, a mixture of noise and vector (arXiv 2202.00512); epsilon, the noise, as MAR does: where there
            is hardly anything but noise, small errors of epsilon are large ones of the vector; or x, the vector
            itself, which a narrow network can predict of vectors wider than it (arXiv 2511.13720).
        schedule: of noise: cosine, or linear as of DDPM.
        repeats: at how many levels of noise each vector is learnt in a step; MAR has 4.
        depth: blocks of the small network; 0 = the prediction is linear in the hidden state.
        hidden: width of the small network.
    """

    def __init__(
        self,
        context: HeadContext,
        symbols: int,
        *,
        steps: Cells = 100,
        predicts: Predicted = "v",
        schedule: Literal["cosine", "linear"] = "cosine",
        repeats: Count = 1,
        depth: Count = 3,
        hidden: Width = 1024,
    ):
        super().__init__(context, symbols, steps=steps, repeats=max(1, repeats), depth=depth, hidden=hidden)
        self.path = NoiseLevels(schedule == "cosine", predicts)


class NoiseLevels:
    """A variance-preserving path. Time 0 is the least noise, (LEVELS - 1) / LEVELS the most."""

    clean = 0.0

    def __init__(self, cosine: bool, predicts: Predicted):
        self.predicts = predicts
        betas = _cosine_betas() if cosine else torch.linspace(1e-4, 0.02, LEVELS, dtype=torch.float64)
        self._signal = (1 - betas).cumprod(0)

    def times(self, uniform: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        return (uniform * LEVELS).floor() / LEVELS

    def noisy(
        self, values: Float[Tensor, "*s c"], noise: Float[Tensor, "*s c"], times: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s c"]:
        signal, deviation = self._shares(times)
        return signal * values + deviation * noise

    def target(
        self, values: Float[Tensor, "*s c"], noise: Float[Tensor, "*s c"], times: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s c"]:
        if self.predicts != "v":
            return noise if self.predicts == "epsilon" else values
        signal, deviation = self._shares(times)
        return signal * noise - deviation * values

    def steps(self, count: int) -> list[tuple[float, float]]:
        levels = torch.linspace(LEVELS - 1, 0, min(count, LEVELS)).round().long().tolist()
        times = [level / LEVELS for level in levels]
        return list(zip(times, [*times[1:], -1.0], strict=True))  # -1: no noise at all

    def random(self) -> bool:
        return True

    def advance(
        self,
        noisy: Float[Tensor, "*s c"],
        predicted: Float[Tensor, "*s c"],
        step: tuple[float, float],
        fresh: Float[Tensor, "*s c"] | None,
    ) -> Float[Tensor, "*s c"]:
        now, later = (self._signal_at(time) for time in step)
        values = predicted
        if self.predicts == "v":
            values = math.sqrt(now) * noisy - math.sqrt(1 - now) * predicted
        elif self.predicts == "epsilon":
            values = (noisy - math.sqrt(1 - now) * predicted) / math.sqrt(now)
        if later == 1:
            return values
        beta = 1 - now / later
        mean = math.sqrt(later) * beta / (1 - now) * values
        mean = mean + math.sqrt(now / later) * (1 - later) / (1 - now) * noisy
        return mean if fresh is None else mean + math.sqrt((1 - later) / (1 - now) * beta) * fresh

    def _signal_at(self, time: float) -> float:
        """The share of the variance that is the values'."""
        return 1.0 if time < 0 else float(self._signal[round(time * LEVELS)])

    def _shares(self, times: Float[Tensor, "*s"]) -> tuple[Float[Tensor, "*s 1"], Float[Tensor, "*s 1"]]:
        """By what values and noise are multiplied at these times."""
        signal = self._signal.to(times.device)[(times * LEVELS).round().long()][..., None]
        return signal.sqrt().float(), (1 - signal).sqrt().float()


def _cosine_betas() -> Float[Tensor, " l"]:
    edges = torch.arange(LEVELS + 1, dtype=torch.float64) / LEVELS
    signal = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - signal[1:] / signal[:-1]).clamp(max=_MOST_BETA)
