"""The optimiser with a learning rate for each slot, its schedules, and its state by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from chiasm.errors import CheckpointError, RecipeError
from chiasm.model import Model
from chiasm.objectives import Objective
from chiasm.parts import Part
from chiasm.recipe import Stage

MOMENTUM = "momentum_buffer"  # Muon's only moment

# Slots whose matrices Muon takes: the stacks of layers. All else is AdamW's.
STACKS = ("encoder", "language", "image_tokenizer", "image_decoder")
LINEAR = (nn.Linear, Conv1D)  # GPT-2 writes its linear layers as Conv1D


class MuonAdamW:
    """Muon (arXiv 2502.16982) for the matrices inside the stacks of layers, AdamW for all else.

    Muon's updates are scaled to AdamW's root mean square, so that a learning rate means the same for both.
    """

    def __init__(self, muon: list[dict[str, Any]], adamw: torch.optim.AdamW):
        self.adamw = adamw
        self.muon = torch.optim.Muon(muon, adjust_lr_fn="match_rms_adamw")
        self.muon.state = adamw.state  # one place for the state of every parameter

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [*self.adamw.param_groups, *self.muon.param_groups]

    @property
    def state(self) -> Any:
        return self.adamw.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.adamw.zero_grad(set_to_none)
        self.muon.zero_grad(set_to_none)

    def step(self) -> None:
        self.adamw.step()
        self.muon.step()


Optimiser = torch.optim.AdamW | MuonAdamW


def build_optimiser(model: Model, stage: Stage, objective: Objective | None = None) -> Optimiser:
    """AdamW (arXiv 1711.05101) over the slots that the stage trains, or with `optimiser: muon` both.

    Vectors (norms, biases) and embedding tables are not decayed. Raises RecipeError for a slot without parameters,
    and for an objective whose own weights would stay as they were drawn.
    """
    groups: list[dict[str, Any]] = []
    matrices: list[dict[str, Any]] = []
    check_slots(model, stage, objective)
    slots = _slots(model, objective)
    for slot, peak in stage.train.items():
        named = learning(slots[slot])
        matrix_weights = _matrices(model, slot) if stage.optimiser == "muon" else set()
        undecayed = set().union(*map(_undecayed, _learners(slots[slot]).values())) - matrix_weights
        others = {name: p for name, p in named.items() if p not in matrix_weights}
        matrices += _group(
            slot, {n: p for n, p in named.items() if p in matrix_weights}, peak, stage.weight_decay
        )
        groups += _group(
            slot, {n: p for n, p in others.items() if p not in undecayed}, peak, stage.weight_decay
        )
        groups += _group(slot, {n: p for n, p in others.items() if p in undecayed}, peak, 0.0)
    if objective is not None and "objective" not in stage.train and learning(objective):
        raise RecipeError(
            f"stage {stage.name!r} does not train the weights of objective {objective.name!r}; "
            "give them a learning rate, train: {objective: ...}"
        )
    adamw = torch.optim.AdamW(groups, betas=stage.betas, fused=_can_fuse(model.device))
    return MuonAdamW(matrices, adamw) if matrices else adamw


def check_slots(model: Model, stage: Stage, objective: Objective | None = None) -> None:
    """Raise RecipeError for a slot without parameters that the stage would train."""
    for slot, part in _slots(model, objective).items():
        if slot in stage.train and not learning(part):
            raise RecipeError(
                f"stage {stage.name!r} trains {slot!r}, but {part.name!r} has no parameters; leave it out"
            )


def _group(slot: str, named: Mapping[str, nn.Parameter], peak: float, decay: float) -> list[dict[str, Any]]:
    """One parameter group with the full names of its parameters; none when there are none."""
    if not named:
        return []
    names = [f"{slot}.{name}" for name in named]
    return [
        {
            "params": list(named.values()),
            "names": names,
            "slot": slot,
            "peak": peak,
            "lr": peak,
            "weight_decay": decay,
        }
    ]


def _matrices(model: Model, slot: str) -> set[nn.Parameter]:
    """Weights of the linear layers of a stack, without the head over a vocabulary."""
    if slot not in STACKS:
        return set()
    learners = _learners(model.slots()[slot]).values()
    modules = (module for learner in learners for module in learner.modules())
    layers = (module for module in modules if isinstance(module, LINEAR))
    matrices = {p for layer in layers for p in layer.parameters(recurse=False) if p.ndim == 2}
    return matrices - set(model.language.head.parameters()) if model.speaks else matrices


def rate(stage: Stage, step: int) -> float:
    """The share of the peak learning rate at `step` (the first is 0).

    It rises linearly to 1 over the warm-up; then it stays (`constant`), or falls towards 0, in a straight line
    (`linear`) or half a cosine.
    """
    warm = round(stage.warmup * stage.steps)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, stage.steps - warm)
    if stage.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if stage.schedule == "linear" else 1.0


def set_rate(optimiser: Optimiser, stage: Stage, step: int) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * rate(stage, step)


def optimiser_state(optimiser: Optimiser) -> dict[str, Tensor]:
    """The optimiser's tensors by `name of the parameter/name of the moment`."""
    return {
        f"{name}/{key}": value
        for group in optimiser.param_groups
        for name, parameter in zip(group["names"], group["params"])
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def restore_optimiser(optimiser: Optimiser, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors of `optimiser_state` back.

    Raises CheckpointError for a parameter that is not trained, or by another of Muon and AdamW than before.
    """
    parameters = {
        name: p for group in optimiser.param_groups for name, p in zip(group["names"], group["params"])
    }
    muon = optimiser.muon.param_groups if isinstance(optimiser, MuonAdamW) else []
    by_muon = {name for group in muon for name in group["names"]}
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise CheckpointError(
                f"the checkpoint has an optimiser state for {name!r}, which this stage does not train"
            )
        if (key == MOMENTUM) != (name in by_muon):
            kinds = ("Muon", "AdamW") if key == MOMENTUM else ("AdamW", "Muon")
            raise CheckpointError(
                f"the checkpoint has {kinds[0]}'s state for {name!r}, which {kinds[1]} takes now: "
                "begin the stage anew, or go on with the version of Chiasm that began it"
            )
        parameter = parameters[name]
        if key != "step" and tensor.shape != parameter.shape:
            raise CheckpointError(
                f"the optimiser state of {name!r} is {tuple(tensor.shape)}, "
                f"but the parameter {tuple(parameter.shape)}"
            )
        # A copy: what was read from a file may be the file itself, mapped into memory.
        optimiser.state[parameter][key] = tensor.clone().to(parameter.device)


@dataclass(frozen=True)
class SlotRow:
    """One slot in the table of what is trained. rate: its peak learning rate, 0 when frozen."""

    slot: str
    part: str
    parameters: int
    trained: int
    rate: float


def table(model: Model, stage: Stage, objective: Objective | None = None) -> list[SlotRow]:
    """The slots with their parameters, after `train_only`."""
    rows = []
    for slot, part in _slots(model, objective).items():
        parameters = list(part.parameters()) if isinstance(part, nn.Module) else []
        total = sum(p.numel() for p in parameters)
        learns = (
            learning(part).values() if slot in stage.train else ()
        )  # elsewhere it is another slot's to train
        trained = sum(p.numel() for p in learns if p.requires_grad)
        rows.append(SlotRow(slot, part.name, max(total, trained), trained, stage.train.get(slot, 0.0)))
    return rows


def _slots(model: Model, objective: Objective | None) -> dict[str, Any]:
    return model.slots() | ({} if objective is None else {"objective": objective})


def learning(part: Part | nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name; of an objective, without those of its teachers."""
    fixed = isinstance(part, Objective)
    named = (module.named_parameters(prefix=prefix) for prefix, module in _learners(part).items())
    return {name: p for parameters in named for name, p in parameters if p.requires_grad or not fixed}


def _learners(part: Part | nn.Module) -> Mapping[str, nn.Module]:
    """What of a part learns; of a module that is none, all."""
    return part.learners() if isinstance(part, Part) else {"": part}


def _undecayed(part: nn.Module) -> set[nn.Parameter]:
    tables = {
        p for module in part.modules() if isinstance(module, nn.Embedding) for p in module.parameters(False)
    }
    return tables | {p for p in part.parameters() if p.ndim < 2}


def _can_fuse(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda")
