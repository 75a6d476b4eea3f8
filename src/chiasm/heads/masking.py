"""How many values of an image are masked, and which (MaskGIT, arXiv 2202.04200)."""

from __future__ import annotations

import math
from contextlib import suppress

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chiasm.nn.generators import Generators


def masked_share(schedule: str, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Share of codes that are masked when the share `t` of the steps is done. Raises ValueError."""
    if schedule == "cosine":
        return torch.cos(t * math.pi * 0.5)
    if schedule == "linear":
        return 1 - t
    if schedule == "sigmoid":  # between -3 and 3
        first, last = torch.tensor([-3.0, 3.0]).sigmoid()
        return (last - torch.sigmoid(t * 6 - 3)) / (last - first)
    if schedule.startswith("pow"):
        with suppress(ValueError):
            power = float(schedule.removeprefix("pow"))
            if 0 < power < math.inf:
                return 1 - t**power
    raise ValueError(
        f"the schedule is {schedule!r}; it must be cosine, linear, sigmoid or powX with X above 0"
    )


def unsure(
    confidence: Float[Tensor, "n k"],
    remaining: Int[Tensor, "n 1"],
    temperature: float,
    generators: Generators | None,
) -> Bool[Tensor, "n k"]:
    """The `remaining` cells of each image with the least confidence, on which there is noise at a temperature."""
    if temperature > 0:
        assert generators is not None
        noise = generators.uniform(*confidence.shape[1:], device=confidence.device)
        confidence = confidence - temperature * torch.log(-torch.log(noise))
    return confidence < confidence.sort(-1).values.gather(1, remaining)
