"""The aim of a stage with an objective."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from chiasm import parts
from chiasm.model import Model
from chiasm.nn.losses import Loss
from chiasm.objectives import Described, Objective, Setting
from chiasm.recipe import Stage
from chiasm.training.aims import Aim
from chiasm.training.batches import DescribedBatches
from chiasm.training.mixture import number


class Pretraining(Aim):
    """The losses of an objective on pictures with words."""

    unit = "pictures"

    def __init__(self, model: Model, objective: Objective):
        self.model, self.objective = model, objective
        self.names = set(objective.names)

    def losses(self, batch: Described) -> dict[str, Loss]:
        return self.objective.losses(self.model, batch)

    def counts(self, batch: Described) -> dict[str, float]:
        return self.objective.terms(batch)

    def before_step(self, done: float) -> None:
        self.objective.done = done

    def after_step(self) -> None:
        self.objective.after_step(self.model)

    def forget(self) -> None:
        self.objective.forget()

    def modules(self) -> Iterable[nn.Module]:
        return self.model, self.objective

    def buffers(self) -> Iterable[Tensor]:
        return self.objective.buffers()

    def health(self) -> dict[str, float]:
        return self.objective.health()

    def warning(self) -> str | None:
        return self.objective.collapse()

    def finish(self) -> None:
        self.objective.hand_over(self.model)


def build_objective(model: Model, stage: Stage, batches: DescribedBatches, seed: int) -> Objective:
    """The stage's objective; its initial values depend on the seed and the stage's name alone."""
    torch.manual_seed(number(seed, stage.name, "objective") % 2**63)
    setting = Setting(model, batches.size, batches.labels)
    where = f"stages.{stage.name}.objective"
    objective: Objective = parts.build("objective", stage.objective or {}, setting, where=where)
    return objective.to(model.device)
