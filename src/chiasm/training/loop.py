"""One stage of training, from its first step, or the one after a checkpoint, to its last."""

from __future__ import annotations

import math
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from chiasm.data import Source
from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.errors import ChiasmError, DivergedError, RecipeError
from chiasm.model import Model
from chiasm.nn.recompute import recomputing
from chiasm.objectives import Described
from chiasm.recipe import Recipe, Stage
from chiasm.sequence import PackedBatch
from chiasm.training.aims import Aim, CaptionsAim, DecoderAim, DocumentsAim, TokenizerAim
from chiasm.training.batches import DescribedBatches, PictureBatches
from chiasm.training.encoded_images import EncodedImages, EncodedReader
from chiasm.training.feed import Feed, usual_workers
from chiasm.training.metrics import Metrics
from chiasm.training.mixture import number, without_use
from chiasm.training.optimiser import build_optimiser, rate, restore_optimiser, set_rate, table
from chiasm.training.position import Position
from chiasm.training.prepare import prepared
from chiasm.training.prepare_images import prepared_images
from chiasm.training.pretraining import Pretraining, build_objective
from chiasm.training.progress import Line, Speed, Status, trained_table
from chiasm.training.run import command
from chiasm.training.state import Saved, save_checkpoint
from chiasm.training.step import StepOutcome, TrainStep, uses_bf16
from chiasm.training.usable import StageBatches, merged, skipped, stage_batches

MOST_SKIPPED = 20  # steps in a row that may be skipped before training stops with an error
_MEMORY = 0.95  # of the moving averages of the losses


class Interrupted(ChiasmError):
    """Training was stopped by a signal; its state is saved, and the message names the command that goes on."""


@dataclass
class Training:
    """What all stages of a run share."""

    recipe: Recipe
    folder: Path
    model: Model
    sources: Mapping[str, Source]
    ranks: Ranks
    device: torch.device
    console: Console
    metrics: Metrics
    position: Position
    workers: int | None = None  # processes that make batches; None: as many as are usual here
    skipped: dict[str, Counter[str]] = field(default_factory=dict)  # records, by source and kind
    stopped: Interrupted | None = None  # by a signal in the last step of the run
    _warned: bool = False

    @property
    def skips(self) -> bool:
        """Whether records that cannot be used are skipped."""
        return any(source.broken == "skip" for source in self.sources.values())

    def run_stage(self, saved: Saved | None) -> None:
        """Run the stage at `position`, to its end; `saved` is the checkpoint that it goes on from.

        Raises Interrupted after a signal, unless the run ends with that step, and ChiasmError after too many steps
        that were not finite.
        """
        stage = self.recipe.stages[self.position.stage]
        self.model.train_only(stage.train)
        aim, batches = self._aim(stage)
        objective = aim.objective if isinstance(aim, Pretraining) else None
        optimiser = build_optimiser(self.model, stage, objective)
        self.console.print(trained_table(stage, table(self.model, stage, objective)))
        if saved is not None:
            if objective is not None:
                saved.restore_objective(objective)
            restore_optimiser(optimiser, saved.optimiser())
            batches.restore(saved.position.batches[self.ranks.rank])
        step = TrainStep(aim, optimiser, stage, self.ranks, self.device)
        if saved is not None:
            saved.restore_random(self.ranks.rank)
        else:
            seed_all(number(self.recipe.seed, stage.name, self.ranks.rank))
        with (
            self._recomputing(stage, objective),
            Feed(batches, self._workers(stage)) as feed,
            Line(self.console, stage, active=self.ranks.first) as line,
            Stop(self._announce_stop) as stop,
        ):
            speed = Speed(aim.unit)
            while self.position.step < stage.steps:
                self._step(stage, step, feed, line, speed, stop)
        # Only here is it too late for a signal: one may also come while the end of the stage is saved.
        if self.ranks.any(stop.requested):
            self.stopped = self._interrupted(stage)
            if self.position.stage < len(self.recipe.stages) - 1:
                raise self.stopped

    @contextmanager
    def _recomputing(self, stage: Stage, objective: nn.Module | None) -> Iterator[None]:
        """Where the stage says so, layers keep no activations; raises RecipeError where there are no layers."""
        if not stage.recompute:
            yield
            return
        slots = (part for part in self.model.slots().values() if isinstance(part, nn.Module))
        with recomputing([*slots, *([] if objective is None else [objective])]) as layers:
            if not layers:
                raise RecipeError(
                    f"stage {stage.name!r} has recompute: true, but the model has no stack of layers for it"
                )
            self.console.print(
                f"stage {stage.name}: {len(layers)} layers are computed again in the backward pass",
                highlight=False,
            )
            yield

    def _aim(self, stage: Stage) -> tuple[Aim, StageBatches]:
        """What the stage minimises, and on what."""
        reader: PictureReader | EncodedReader | None = None
        left_out = self.position.left_out.get(stage.name, {})
        decoder_alone = "image_decoder" in stage.train and not self.model.conditions
        options: dict[str, Any] = {"seed": self.recipe.seed, "ranks": self.ranks, "console": self.console}
        if decoder_alone:
            reader = prepared_images(self.model, self.sources, stage, left_out=left_out, **options)
        elif stage.objective is None and "image_tokenizer" not in stage.train:
            bf16 = uses_bf16(stage.precision, self.device)
            reader = prepared(self.model, self.sources, stage, bf16=bf16, left_out=left_out, **options)
        batches = stage_batches(self.model, self.sources, stage, self.recipe.seed, self.ranks, reader)
        batches.mixture.leave_out(left_out)
        for name, count in without_use(left_out).items():
            groups = f"{count:,} of the {len(self.sources[name]):,} groups of {name}"
            wanted = "no image" if isinstance(batches, PictureBatches) else "nothing that it trains on"
            self.console.print(f"stage {stage.name}: {groups} have {wanted}", highlight=False, markup=False)
        return aim_of(self.model, stage, batches, self.recipe.seed), batches

    def _workers(self, stage: Stage) -> int:
        skips = any(self.sources[name].broken == "skip" for name in stage.data)
        return usual_workers(self.device, skips=skips) if self.workers is None else self.workers

    def _note_skipped(self, state: Mapping[str, Any]) -> int:
        """Collect the records that all ranks have left out so far, and return how many."""
        left_out = self.ranks.gather(state["left_out"])
        self.skipped = skipped(self.sources, *self.position.left_out.values(), *left_out)
        return sum(kinds.total() for kinds in self.skipped.values())

    def _step(
        self, stage: Stage, step: TrainStep, feed: Feed[Any], line: Line, speed: Speed, stop: Stop
    ) -> None:
        position, optimiser, aim = self.position, step.optimiser, step.aim
        started_at = time.perf_counter()
        taken = [feed.take() for _ in range(stage.accumulate)]
        set_rate(optimiser, stage, position.step)
        lr = {group["slot"]: group["lr"] for group in optimiser.param_groups}
        aim.before_step(position.step / stage.steps)
        outcome = step([each.batch for each in taken])
        self.ranks.share(aim.buffers())
        seconds = time.perf_counter() - started_at
        real, places, samples = (sum(sizes) for sizes in zip(*(sizes_of(each.batch) for each in taken)))
        waited = sum(each.waited for each in taken)
        speed.add(real, places, seconds, waited)
        self._count(outcome, real, seconds)
        stage_ends = position.step == stage.steps
        health, warning = aim.health(), aim.warning()
        self.metrics.write(
            position.total,
            {
                "stage": stage.name,
                "step": position.step,
                "total": position.total,
                "losses": {name: _finite(value) for name, value in outcome.losses.items()},
                "objective": _finite(outcome.objective),
                "norm": _finite(outcome.norm),
                "lr": lr,
                "skipped": outcome.skipped,
                "samples": samples,
                **({"pictures": real} if aim.unit == "pictures" else {"real": real, "places": places}),
                **({"records_skipped": self._note_skipped(taken[-1].state)} if self.skips else {}),
                "seconds": round(seconds, 6),
                "waited": round(waited, 6),
                **({"health": health} if health else {}),
                **({"warning": warning} if warning else {}),
            },
        )
        averages = {name: value for name, value in position.averages.items() if name != "objective"}
        fastest = max(stage.train.values()) * rate(stage, position.step - 1)
        line.update(Status(position.step, averages, fastest, speed, health, position.skipped))
        self._warn(warning)
        self._give_up_on_nonsense(stage)
        if stage_ends:
            aim.finish()
        stopped = self.ranks.any(stop.requested) and not stage_ends
        if stage_ends or stopped or position.step % self.recipe.checkpoints.every == 0:
            position.metrics = self.metrics.size()
            position.batches = self.ranks.gather(taken[-1].state)
            if stage_ends:
                position.left_out[stage.name] = merged(*(each["left_out"] for each in position.batches))
            objective = aim.objective if isinstance(aim, Pretraining) else None
            save_checkpoint(self.folder, self.recipe, self.model, optimiser, position, self.ranks, objective)
        if stopped:
            raise self._interrupted(stage)

    def _interrupted(self, stage: Stage) -> Interrupted:
        return Interrupted(
            f"stopped after step {self.position.step} of {stage.steps} of stage {stage.name!r}; all is saved in "
            f"{self.folder}. To go on, give the same command again:\n  {command()}"
        )

    def _warn(self, warning: str | None) -> None:
        """Say what goes wrong when it begins."""
        if warning and not self._warned:
            self.console.print(warning, style="yellow", highlight=False, soft_wrap=True)
        self._warned = bool(warning)

    def _count(self, outcome: StepOutcome, real: int, seconds: float) -> None:
        position = self.position
        position.step += 1
        position.total += 1
        position.tokens += real
        position.seconds += seconds
        if outcome.skipped:
            position.skipped += 1
            position.in_a_row += 1
            return
        position.in_a_row = 0
        for name, value in (*outcome.losses.items(), ("objective", outcome.objective)):
            before = position.averages.get(name, value)
            position.averages[name] = _MEMORY * before + (1 - _MEMORY) * value

    def _give_up_on_nonsense(self, stage: Stage) -> None:
        if self.position.in_a_row >= MOST_SKIPPED:
            raise DivergedError(
                f"stage {stage.name!r}: the loss or its gradient was not finite in {MOST_SKIPPED} steps in a row, "
                f"up to step {self.position.step}; lower its learning rate, or set precision: fp32"
            )
        if self.position.in_a_row:
            self.console.print(
                f"step {self.position.step} skipped: its loss or gradient is not finite", style="yellow"
            )

    def _announce_stop(self) -> None:
        self.console.print("stopping after this step; once more to stop at once")


class Stop:
    """Notes SIGINT and SIGTERM instead of dying of them; a context manager. The second SIGINT interrupts."""

    def __init__(self, say: Callable[[], None]):
        self.requested = False
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._note) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        self._say()


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's random numbers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)


def aim_of(model: Model, stage: Stage, batches: StageBatches, seed: int) -> Aim:
    """What a stage minimises."""
    if isinstance(batches, DescribedBatches):
        return Pretraining(model, build_objective(model, stage, batches, seed))
    if not isinstance(batches, PictureBatches):
        alone = set(stage.train) == {"image_decoder"} and model.decodes_alone
        return (CaptionsAim if alone else DocumentsAim)(model)
    return (TokenizerAim if "image_tokenizer" in stage.train else DecoderAim)(model)


def sizes_of(batch: PackedBatch | Tensor | Described | EncodedImages) -> tuple[int, int, int]:
    """How much of a batch is real, how much it could hold, and how many samples it has."""
    if isinstance(batch, PackedBatch):
        return batch.real, batch.ids.numel(), batch.samples
    return len(batch), len(batch), len(batch)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
