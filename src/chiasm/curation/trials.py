"""Short trainings of a model in memory, after each of which it is as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from chiasm.data import Source
from chiasm.distribution.processes import Ranks
from chiasm.errors import ChiasmError, nearest
from chiasm.model import Model
from chiasm.recipe import Stage
from chiasm.training.aims import DocumentsAim
from chiasm.training.loop import seed_all
from chiasm.training.mixture import number
from chiasm.training.optimiser import build_optimiser, set_rate
from chiasm.training.step import TrainStep
from chiasm.training.usable import stage_batches

LEARNING = ("connector", "language")  # what instruction tuning trains


@dataclass(frozen=True)
class Trial:
    """A short training. train: learning rate of each slot. rows, length: of a packed batch, in tokens."""

    steps: int = 100
    train: Mapping[str, float] = field(default_factory=dict)
    rows: int = 8
    length: int = 512

    def rates(self, model: Model) -> dict[str, float]:
        """`train`, or 1e-4 for connector and language model. Raises ChiasmError for a slot without weights."""
        weighted = {
            slot: part
            for slot, part in model.slots().items()
            if isinstance(part, nn.Module) and next(part.parameters(), None) is not None
        }
        for slot in self.train:
            if slot not in weighted:
                raise ChiasmError(
                    f"a trial trains {slot!r}, which has no weights here{nearest(slot, weighted)}"
                )
        return dict(self.train) or {slot: 1e-4 for slot in LEARNING if slot in weighted}


def read_rates(entries: Sequence[str]) -> dict[str, float]:
    """The learning rate of each slot from `slot=rate`. Raises ChiasmError for what is neither, or comes twice."""
    rates: dict[str, float] = {}
    for entry in entries:
        slot, _, text = entry.partition("=")
        if slot in rates:
            raise ChiasmError(f"--train has {entry!r}, but {slot} has the rate {rates[slot]:g} already")
        try:
            rates[slot] = float(text)
        except ValueError:
            raise ChiasmError(
                f"--train has {entry!r}; it must be a slot and its rate: language=1e-4"
            ) from None
        if not slot or not 0 < rates[slot] < 1:
            raise ChiasmError(f"--train has {entry!r}; a learning rate lies between 0 and 1: language=1e-4")
    return rates


def learn(
    model: Model, sources: Mapping[str, Source], shares: Mapping[str, float], trial: Trial, seed: int
) -> None:
    """Train a model on sources, by their shares of samples. Raises ChiasmError where its losses are not finite."""
    stage = Stage(
        name="trial",
        train=trial.rates(model),
        data=dict(shares),
        steps=trial.steps,
        rows=trial.rows,
        length=trial.length,
    )
    ranks = Ranks(device=model.device)
    model.train_only(stage.train)
    seed_all(number(seed, stage.name))
    batches = stage_batches(model, sources, stage, seed, ranks)
    optimiser = build_optimiser(model, stage)
    step = TrainStep(DocumentsAim(model), optimiser, stage, ranks, model.device)
    for index in range(stage.steps):
        set_rate(optimiser, stage, index)
        outcome = step([batches.next()])
        if outcome.skipped:
            named = ", ".join(sources)
            raise ChiasmError(
                f"the losses of {named} are not finite at step {index + 1} of a trial; take a lower learning rate"
            )
    model.eval()
