"""Classifier-free guidance of a denoiser (arXiv 2207.12598), with two branches or three."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from chiasm.decoders.conditions import Condition


@dataclass(frozen=True)
class Guidance:
    """How far a prediction is led toward its condition.

    scale: 1 = no guidance, else `without + scale * (with - without)`.
    source_scale: the same toward the image to change, where there is one (InstructPix2Pix, arXiv 2211.09800):
        `none + source_scale * (source - none) + scale * (all - source)`.
    rescale: how far the guided prediction's deviation is brought back to the conditional one's (arXiv 2305.08891).
    """

    scale: float = 1.0
    source_scale: float = 1.0
    rescale: float = 0.0

    def branches(self, condition: Condition, without: Condition | None) -> list[Condition]:
        """The conditions that the denoiser runs on, with the whole one last."""
        if condition.source is None:
            return [condition] if self.scale == 1 or without is None else [without, condition]
        if without is None or self.scale == self.source_scale == 1:
            return [condition]
        without = without._replace(source=condition.source)
        return [without.with_zero_source(), without, condition]

    def combined(self, predicted: Sequence[Float[Tensor, "n c h w"]]) -> Float[Tensor, "n c h w"]:
        """One prediction of those on the branches."""
        if len(predicted) == 1:
            return predicted[0]
        *weaker, whole = predicted
        result = weaker[-1] + self.scale * (whole - weaker[-1])
        if len(weaker) == 2:
            result = result + (self.source_scale - 1) * (weaker[1] - weaker[0])
        if self.rescale:
            axes = tuple(range(1, whole.ndim))
            ratio = whole.std(axes, keepdim=True) / result.std(axes, keepdim=True)
            result = result * (1 + self.rescale * (ratio - 1))
        return result
