"""AdamW with a learning rate for each slot, its schedules, and its state by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chiasm.errors import CheckpointError, RecipeError
from chiasm.model import Model
from chiasm.recipe import Stage


def optimiser(model: Model, stage: Stage) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) over the slots that the stage trains, two groups each: with and without decay.

    Vectors (norms, biases) and embedding tables are not decayed. Raises RecipeError for a slot without parameters.
    """
    groups: list[dict[str, Any]] = []
    slots = model.slots()
    for slot, rate in stage.train.items():
        named = dict(slots[slot].named_parameters()) if isinstance(slots[slot], nn.Module) else {}
        if not named:
            raise RecipeError(
                f"stage {stage.name!r} trains {slot!r}, but {slots[slot].name!r} has no parameters; leave it out"
            )
        kept = _undecayed(slots[slot])
        for decays in (True, False):
            chosen = {f"{slot}.{name}": p for name, p in named.items() if (p not in kept) == decays}
            if chosen:
                groups.append(
                    {
                        "params": list(chosen.values()),
                        "names": list(chosen),
                        "slot": slot,
                        "peak": rate,
                        "lr": rate,
                        "weight_decay": stage.weight_decay if decays else 0.0,
                    }
                )
    return torch.optim.AdamW(groups, betas=stage.betas, fused=_can_fuse(model.device))


def rate(stage: Stage, step: int) -> float:
    """The share of the peak learning rate at `step` (the first is 0).

    It rises linearly to 1 over the warm-up; then it stays (`constant`), or falls towards 0, in a straight line
    (`linear`) or half a cosine.
    """
    warm = round(stage.warmup * stage.steps)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, stage.steps - warm)
    if stage.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - done if stage.schedule == "linear" else 1.0


def set_rate(made: torch.optim.Optimizer, stage: Stage, step: int) -> None:
    for group in made.param_groups:
        group["lr"] = group["peak"] * rate(stage, step)


def optimiser_state(made: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by `name of the parameter/name of the moment`."""
    return {
        f"{name}/{key}": value
        for group in made.param_groups
        for name, parameter in zip(group["names"], group["params"])
        for key, value in made.state.get(parameter, {}).items()
    }


def restore_optimiser(made: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors of `optimiser_state` back; raises CheckpointError for a parameter that is not trained."""
    parameters = {name: p for group in made.param_groups for name, p in zip(group["names"], group["params"])}
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise CheckpointError(
                f"the checkpoint has an optimiser state for {name!r}, which this stage does not train"
            )
        parameter = parameters[name]
        if key != "step" and tensor.shape != parameter.shape:
            raise CheckpointError(
                f"the optimiser state of {name!r} is {tuple(tensor.shape)}, "
                f"but the parameter {tuple(parameter.shape)}"
            )
        # A copy: what was read from a file may be the file itself, mapped into memory.
        made.state[parameter][key] = tensor.clone().to(parameter.device)


@dataclass(frozen=True)
class Row:
    """One slot in the table of what is trained. rate: its peak learning rate, 0 when frozen."""

    slot: str
    part: str
    parameters: int
    trained: int
    rate: float


def table(model: Model, stage: Stage) -> list[Row]:
    """The slots with their parameters, after `train_only`."""
    rows = []
    for slot, part in model.slots().items():
        parameters = list(part.parameters()) if isinstance(part, nn.Module) else []
        total = sum(p.numel() for p in parameters)
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        rows.append(Row(slot, part.name, total, trained, stage.train.get(slot, 0.0)))
    return rows


def _undecayed(part: nn.Module) -> set[nn.Parameter]:
    tables = {
        p for module in part.modules() if isinstance(module, nn.Embedding) for p in module.parameters(False)
    }
    return tables | {p for p in part.parameters() if p.ndim < 2}


def _can_fuse(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda")
