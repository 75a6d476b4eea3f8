"""The gradient of one optimiser step: sums and counts are added up over micro-batches and ranks, then divided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from chiasm.distribution.processes import Ranks
from chiasm.errors import ChiasmError, RecipeError, nearest
from chiasm.nn.indivisible import reasons
from chiasm.nn.losses import Loss, objective
from chiasm.recipe import Stage
from chiasm.training.aims import Aim
from chiasm.training.optimiser import Optimiser


@dataclass(frozen=True)
class StepOutcome:
    """The results of one step. losses: means by name; norm: of the gradient before clipping."""

    losses: dict[str, float] = field(default_factory=dict)
    objective: float = 0.0
    norm: float = 0.0
    skipped: bool = False


class TrainStep:
    """Gradients, clipping and the optimiser, for one list of micro-batches at a time.

    A step whose loss or gradient is not finite leaves the weights as they are and is reported as skipped.
    """

    def __init__(self, aim: Aim, optimiser: Optimiser, stage: Stage, ranks: Ranks, device: torch.device):
        self.aim, self.optimiser, self.stage, self.ranks, self.device = aim, optimiser, stage, ranks, device
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self.bf16 = uses_bf16(stage.precision, device)
        self._check_weights(aim.names)
        self._check_shared(stage.accumulate > 1, f"accumulates over {stage.accumulate} batches", False)
        self._check_shared(ranks.world > 1, f"runs in {ranks.world} processes", True)

    def __call__(self, batches: Sequence[Any]) -> StepOutcome:
        self.optimiser.zero_grad(set_to_none=True)
        batches = [batch.to(self.device) for batch in batches]
        # With one micro-batch the counts are taken as they come; with more they must be known beforehand.
        promised = self._promised(batches) if len(batches) > 1 else None
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        weights: dict[str, float] = {}
        for batch in batches:
            losses = self._losses(batch)
            own_counts = {name: float(loss.count) for name, loss in losses.items()}
            total = promised if promised is not None else self.ranks.totals(own_counts)
            if promised is not None:
                self._hold_to(self.aim.counts(batch), own_counts)
            value = objective(losses, total) if losses else None
            if value is not None and value.requires_grad:  # a batch may have no term for what is trained
                value.backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.sum.detach())
                counts[name] = counts.get(name, 0.0) + own_counts[name]
                weights[name] = loss.weight
        self.ranks.sum_gradients(self.parameters)
        return self._apply(self.ranks.gather((sums, counts, weights)))

    def _losses(self, batch: Any) -> dict[str, Loss]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            losses = self.aim.losses(batch)
        return {
            name: replace(loss, weight=loss.weight * self.stage.weights.get(name, 1.0))
            for name, loss in losses.items()
        }

    def _promised(self, batches: Sequence[Any]) -> dict[str, float]:
        promised: dict[str, float] = {}
        for batch in batches:
            for name, count in self.aim.counts(batch).items():
                promised[name] = promised.get(name, 0.0) + count
        return self.ranks.totals(promised)

    def _hold_to(self, promised: dict[str, float], counted: dict[str, float]) -> None:
        if promised != counted:
            raise ChiasmError(
                f"stage {self.stage.name!r} accumulates over {self.stage.accumulate} batches, for which the "
                f"number of loss terms must be known beforehand, but {promised} were promised, not {counted}; "
                "use accumulate: 1"
            )

    def _apply(self, reports: Sequence[tuple[dict[str, float], ...]]) -> StepOutcome:
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        weights: dict[str, float] = {}
        for each in reports:
            for name, value in each[0].items():
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0.0) + each[1][name]
                weights[name] = each[2][name]
        means = {name: sums[name] / max(counts[name], 1.0) for name in sums}
        value = sum(weights[name] * mean for name, mean in means.items())
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.stage.clip))
        if not (math.isfinite(value) and math.isfinite(norm)):
            self.optimiser.zero_grad(set_to_none=True)
            self.aim.forget()
            return StepOutcome(means, value, norm, skipped=True)
        self.optimiser.step()
        self.aim.after_step()
        return StepOutcome(means, value, norm)

    def _check_shared(self, several: bool, how: str, ranks: bool) -> None:
        """Raise RecipeError for a loss that is no sum over the batches of a step, where there are several."""
        for module in self.aim.modules() if several else ():
            for reason in reasons(module, ranks=ranks, rows=self.stage.rows):
                instead = "run it in one process" if ranks else "use accumulate: 1"
                raise RecipeError(f"stage {self.stage.name!r} {how}, but {reason}, or {instead}")

    def _check_weights(self, names: set[str] | None) -> None:
        if names is None:
            return
        for name in sorted(set(self.stage.weights) - names):
            raise RecipeError(
                f"stage {self.stage.name!r} weighs the loss {name!r}, which is not there{nearest(name, names)}"
            )


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether a stage runs in bf16 autocast: when the stage says so, or by default on hardware for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    tests = (
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(test() for test in tests if test is not None)
