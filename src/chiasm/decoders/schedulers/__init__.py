"""How noise is added to images in training, and taken away step by step when they are generated."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.parts import Part

Normal = Callable[[], Float[Tensor, "n c h w"]]  # fresh standard normal noise for every image


class Sampler(Protocol):
    """One generation: its times in order, and the step at each.

    start: the deviation of the noise it begins with.
    """

    start: float
    times: Tensor

    def scaled(self, x: Float[Tensor, "n c h w"], time: Tensor) -> Float[Tensor, "n c h w"]:
        """What the denoiser reads of `x` at a time."""

    def step(
        self,
        predicted: Float[Tensor, "n c h w"],
        time: Tensor,
        x: Float[Tensor, "n c h w"],
        normal: Normal,
    ) -> Float[Tensor, "n c h w"]:
        """`x` a step nearer to the image. normal: called once where a step adds noise."""


class Scheduler(Part, slot="scheduler"):
    """Interface. Built as `Scheduler(*, options)`.

    A time is what the denoiser is given: from 0, the image, up to about 1000, noise.
    """

    @abstractmethod
    def sampler(self, steps: int, device: torch.device | str = "cpu") -> Sampler:
        """A generation in `steps` steps. Raises RecipeError for a number that the schedule cannot take."""

    @abstractmethod
    def times(self, uniform: Float[Tensor, " n"]) -> Tensor:
        """Training times from numbers in [0, 1)."""

    @abstractmethod
    def noised(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Tensor
    ) -> Float[Tensor, "n c h w"]:
        """Images at their times."""

    @abstractmethod
    def target(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Tensor
    ) -> Float[Tensor, "n c h w"]:
        """What the denoiser predicts."""

    @abstractmethod
    def min_snr_weights(self, times: Tensor, bound: float) -> Float[Tensor, " n"]:
        """Weights of the loss with the signal-to-noise ratio bounded (min-SNR, arXiv 2303.09556).

        Raises RecipeError for schedules that have none.
        """
