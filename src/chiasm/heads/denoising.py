"""Alphabets that make a vector of noise, step by step, by a small network behind the hidden state."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.heads import Alphabet, DrawnValues, HeadContext, Sampling
from chiasm.heads.noise import first_noise, noise_like
from chiasm.heads.projection import example_tokenizer
from chiasm.heads.sampling import guided
from chiasm.nn.generators import Generators
from chiasm.nn.training_noise import training_numbers
from chiasm.tokenizers.spaces import Vectors

_FREQUENCIES = 128  # of the sinusoids that stand for a time
_SCALE = 1000.0  # times lie in [0, 1]; the sinusoids are those of a thousand steps


class Path(Protocol):
    """How noise becomes values: between noise and values, at times of [0, 1], a network predicts something.

    clean: the time of values without noise.
    """

    clean: float

    def times(self, uniform: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Times at which it learns, of numbers of [0, 1)."""

    def noisy(
        self, values: Float[Tensor, "*s c"], noise: Float[Tensor, "*s c"], times: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s c"]:
        """Values at their times on the path."""

    def target(
        self, values: Float[Tensor, "*s c"], noise: Float[Tensor, "*s c"], times: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s c"]:
        """What the network shall predict of them."""

    def steps(self, count: int) -> list[tuple[float, float]]:
        """From where to where each of so many steps goes; the first begins at noise, the last ends at values."""

    def random(self) -> bool:
        """Whether a step adds noise."""

    def advance(
        self,
        noisy: Float[Tensor, "*s c"],
        predicted: Float[Tensor, "*s c"],
        step: tuple[float, float],
        fresh: Float[Tensor, "*s c"] | None,
    ) -> Float[Tensor, "*s c"]:
        """The values behind a step. fresh: noise, where a step adds it."""


class TokenDenoising(Alphabet):
    """What a flow and a diffusion a token share: a part adds its `path`.

    In training a vector is learnt at `repeats` random times of its path. It is drawn in `steps` steps, each of
    which runs the small network alone, and not the language model. The temperature scales all noise; guidance acts
    on what the network predicts.
    """

    spaces: ClassVar = (Vectors,)
    sampled_by: ClassVar = frozenset({"guidance", "temperature"})
    path: Path

    def __init__(
        self, context: HeadContext, symbols: int, *, steps: int, repeats: int, depth: int, hidden: int
    ):
        super().__init__()
        width = context.vectors.width
        self.step_count, self.repeats = steps, repeats
        self.input = nn.Linear(width, context.width) if symbols else None
        self.network = TokenNetwork(width, context.width, hidden, depth)

    def embed(self, values: Float[Tensor, "*s c"]) -> Float[Tensor, "*s d"]:
        assert self.input is not None
        return self.input(values)

    def loss(
        self,
        hidden: Float[Tensor, "m d"],
        values: Float[Tensor, "m c"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> Float[Tensor, ""]:
        """The squared error of the prediction, of its numbers and over the repeats on average."""
        values = values.float()
        numbers = training_numbers(values, (self.repeats, 1 + values.shape[-1]))
        times, noise = self.path.times(numbers[..., 0]), noise_like(numbers[..., 1:])
        errors = self.errors(hidden[:, None], values[:, None].expand_as(noise), noise, times).mean(1)
        return (errors if weights is None else errors * weights).sum()

    def errors(
        self,
        hidden: Float[Tensor, "*s d"],
        values: Float[Tensor, "*s c"],
        noise: Float[Tensor, "*s c"],
        times: Float[Tensor, "*s"],
    ) -> Float[Tensor, "*s"]:
        """The mean squared error of each prediction, in single precision."""
        predicted = self.network(self.path.noisy(values, noise, times), hidden, times)
        return (predicted.float() - self.path.target(values, noise, times)).square().mean(-1)

    def draw(
        self,
        hidden: Float[Tensor, "r ... d"],
        sampling: Sampling,
        generators: Generators | None = None,
        *,
        never: int | None = None,
    ) -> DrawnValues:
        values = self.noise((*hidden.shape[1:-1], self.network.width), hidden, sampling, generators)
        for step in self.path.steps(self.step_count):
            rows = values if sampling.guidance == 1 else torch.cat([values, values])
            times = torch.full(rows.shape[:-1], step[0], device=rows.device)
            predicted = guided(self.network(rows, hidden, times).float(), sampling.guidance)
            values = self.path.advance(values, predicted, step, self.fresh(values, sampling, generators))
        return DrawnValues(values)

    def noise(
        self,
        shape: tuple[int, ...],
        hidden: Float[Tensor, "r ... d"],
        sampling: Sampling,
        generators: Generators | None,
    ) -> Float[Tensor, "n ..."]:
        """What values begin as."""
        images = len(hidden) if sampling.guidance == 1 else len(hidden) // 2
        return first_noise(images, shape, sampling, generators, hidden.device)

    def fresh(
        self, values: Float[Tensor, "n ..."], sampling: Sampling, generators: Generators | None
    ) -> Float[Tensor, "n ..."] | None:
        """The noise that a step adds, where it adds any."""
        if not self.path.random() or sampling.temperature == 0 or generators is None:
            return None
        return sampling.temperature * generators.normal(*values.shape[1:], device=values.device)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"steps": 3, "depth": 1, "hidden": 16}

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        return example_tokenizer()


class TokenNetwork(nn.Module):
    """MAR's network a token (arXiv 2406.11838): residual blocks whose norms are modulated by hidden state and time.

    With depth 0 it is linear in the hidden state, and does not look at the noisy vector.
    """

    def __init__(self, width: int, condition_width: int, hidden: int, depth: int):
        super().__init__()
        self.width = width
        if not depth:
            self.output = nn.Linear(condition_width, width)
            self.blocks = None
            return
        self.noisy = nn.Linear(width, hidden)
        self.time = TimeEmbedding(hidden)
        self.condition = nn.Linear(condition_width, hidden)
        self.blocks = nn.ModuleList(ModulatedMLP(hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden, 1e-6, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))
        self.output = nn.Linear(hidden, width)
        _zero(self.modulation[1])
        _zero(self.output)

    def forward(
        self, noisy: Float[Tensor, "*s c"], hidden: Float[Tensor, "*s d"], times: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s c"]:
        if self.blocks is None:
            return self.output(hidden).expand_as(noisy)
        x = self.noisy(noisy.to(hidden.dtype))
        condition = self.condition(hidden) + self.time(times).to(hidden.dtype)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition).chunk(2, -1)
        return self.output(self.norm(x) * (1 + scale) + shift)


class ModulatedMLP(nn.Module):
    """A residual network of which the condition sets scale, shift and strength."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, 1e-6)
        self.network = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        _zero(self.modulation[1])

    def forward(self, x: Float[Tensor, "*s w"], condition: Float[Tensor, "*s w"]) -> Float[Tensor, "*s w"]:
        shift, scale, gate = self.modulation(condition).chunk(3, -1)
        return x + gate * self.network(self.norm(x) * (1 + scale) + shift)


class TimeEmbedding(nn.Module):
    """Sinusoids of a time through two linear layers (ADM, arXiv 2105.05233)."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Linear(2 * _FREQUENCIES, width)
        self.last = nn.Linear(width, width)

    def forward(self, times: Float[Tensor, "*s"]) -> Float[Tensor, "*s w"]:
        steps = torch.arange(_FREQUENCIES, device=times.device) / _FREQUENCIES
        angles = _SCALE * times.float()[..., None] * torch.exp(-math.log(10_000.0) * steps)
        waves = torch.cat([angles.cos(), angles.sin()], -1)
        return self.last(functional.silu(self.first(waves.to(self.first.weight.dtype))))


def _zero(layer: nn.Module) -> None:
    """Begin a linear layer at nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
