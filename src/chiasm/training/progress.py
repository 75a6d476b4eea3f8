"""One live line while training; without a terminal a plain line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from chiasm.recipe import Stage
from chiasm.training.optimiser import SlotRow

_SECONDS = 10.0  # between plain lines
_RECENT = 0.9  # weight of the past in speeds


@dataclass
class Speed:
    """Moving sums over recent steps. unit: of what is counted, tokens or pictures."""

    unit: str
    real: float = 0.0
    places: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    steps: float = 0.0

    def add(self, real: int, places: int, seconds: float, waited: float) -> None:
        for name, value in (
            ("real", real),
            ("places", places),
            ("seconds", seconds),
            ("waited", waited),
            ("steps", 1),
        ):
            setattr(self, name, _RECENT * getattr(self, name) + value)


@dataclass
class Status:
    """The contents of the line. losses: moving averages by name."""

    step: int
    losses: Mapping[str, float]
    lr: float
    speed: Speed
    health: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0


class Line:
    """The line of one stage; a context manager."""

    def __init__(self, console: Console, stage: Stage, *, active: bool = True):
        self.console, self.stage, self.active = console, stage, active
        self._last = 0.0
        self._live: Progress | None = None
        if active and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[text]}"),
            )
            self._live = Progress(*columns, console=console, transient=False)
            self._task = self._live.add_task(stage.name, total=stage.steps, text="")

    def __enter__(self) -> Line:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, status: Status) -> None:
        if not self.active:
            return
        if self._live:
            self._live.update(self._task, completed=status.step, text=describe(status, self.stage))
            return
        time_now, last = time.monotonic(), status.step == self.stage.steps
        if last or time_now - self._last >= _SECONDS:
            self._last = time_now
            self.console.print(
                f"{self.stage.name} {describe(status, self.stage)}", highlight=False, soft_wrap=True
            )


def describe(status: Status, stage: Stage) -> str:
    """The line as text."""
    speed = status.speed
    seconds = max(speed.seconds, 1e-9)
    remaining = (stage.steps - status.step) * speed.seconds / max(speed.steps, 1e-9)
    figures = [
        f"{status.step}/{stage.steps}",
        *(f"{name} {value:.3f}" for name, value in status.losses.items()),
    ]
    figures += [f"lr {status.lr:.1e}", f"{speed.real / seconds:,.0f} {speed.unit}/s"]
    if speed.places > speed.real:
        figures.append(f"real {speed.real / speed.places:.0%}")
    figures.append(f"data wait {speed.waited / seconds:.0%}")
    figures += [f"{name.replace('_', ' ')} {_figure(value)}" for name, value in status.health.items()]
    if status.skipped:
        figures.append(f"skipped {status.skipped}")
    return " · ".join([*figures, f"{_clock(remaining)} left"])


def trained_table(stage: Stage, rows: list[SlotRow]) -> Table:
    """What a stage trains, slot by slot."""
    table = Table(title=f"stage {stage.name}: {stage.steps} steps", title_justify="left", box=None)
    for heading in ("slot", "part"):
        table.add_column(heading)
    for heading in ("parameters", "trained", "peak lr"):
        table.add_column(heading, justify="right")
    for row in rows:
        rate = f"{row.rate:g}" if row.trained else "frozen"
        table.add_row(
            row.slot, row.part, f"{row.parameters:,}", f"{row.trained:,}", rate if row.parameters else ""
        )
    return table


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
