"""What training takes, and what makes arms take the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chiasm.errors import RecipeError
from chiasm.recipe import Recipe
from chiasm.studies.plan import Budget, Width

NEAR = 0.02  # relative difference of parameters that counts as equal


class StageCost(NamedTuple):
    """What one optimiser step of a stage takes.

    samples: documents, or images. tokens: positions without padding; of images alone none. flops: of matrix
    products, convolutions and attention, forward and backward, of frozen parts too, which a cache may spare.
    """

    samples: float
    tokens: float
    flops: float


@dataclass(frozen=True)
class ArmCost:
    """stages: by name. parameters: of the model."""

    parameters: int
    stages: Mapping[str, StageCost]

    def total(self, recipe: Recipe, kind: Budget) -> float:
        """What the recipe's training takes, if it costs so much."""
        return sum(stage.steps * getattr(self.stages[stage.name], kind) for stage in recipe.stages)


def matched_steps(
    budget: Budget, recipe: Recipe, cost: ArmCost, base: Recipe, base_cost: ArmCost
) -> dict[str, int]:
    """Steps of each stage with which an arm takes as much as the baseline; raises RecipeError.

    samples, tokens: stage by stage of one name. flops: in all; the last stage is made longer or shorter.
    """
    if budget == "flops":
        *others, last = recipe.stages
        rest = base_cost.total(base, "flops") - sum(
            stage.steps * cost.stages[stage.name].flops for stage in others
        )
        steps = round(rest / cost.stages[last.name].flops)
        if steps < 1:
            raise RecipeError(
                f"the stages before {last.name!r} take more FLOPs than the whole baseline; shorten them"
            )
        return {last.name: steps}
    steps_of = {stage.name: stage.steps for stage in base.stages}
    matched = {}
    for stage in recipe.stages:
        own = getattr(cost.stages[stage.name], budget)
        if stage.name in steps_of and own:
            target = steps_of[stage.name] * getattr(base_cost.stages[stage.name], budget)
            matched[stage.name] = max(1, round(target / own))
    return matched


def matched_width(width: Width, parameters: int, counted: Callable[[int], int]) -> int:
    """The value of a width with which a model comes nearest to so many parameters; raises RecipeError.

    counted: the parameters of the model with a value.
    """
    low, high = 1, width.most // width.step
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if counted(middle * width.step) >= parameters else (middle + 1, high)
    near = {k * width.step: counted(k * width.step) for k in (low - 1, low) if k}
    best = min(near, key=lambda value: abs(near[value] - parameters))
    if abs(near[best] - parameters) > NEAR * parameters:
        raise RecipeError(
            f"{width.key} cannot give the model the baseline's {parameters:,} parameters; the nearest are "
            f"{near[best]:,} with {best}"
        )
    return best


def equal_within(values: Sequence[float], tolerance: float = NEAR) -> bool:
    return max(values) <= min(values) * (1 + tolerance)
