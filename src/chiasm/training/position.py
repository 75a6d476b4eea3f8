"""How far a run has come: what `state.json` of a checkpoint holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from chiasm.errors import CheckpointError
from chiasm.storage.folders import read_json
from chiasm.training.mixture import LeftOut

Natural = Annotated[int, Field(ge=0)]


class MixturePosition(TypedDict):
    """Of `chiasm.training.mixture.Mixture.state`."""

    taken: dict[str, Natural]
    groups: dict[str, Natural]
    current: str | None
    offset: Natural
    left_out: LeftOut


class RandomPosition(TypedDict):
    """The state of Python's and numpy's random numbers, without tensors."""

    python: tuple[int, list[int], float | None]
    numpy: tuple[str, int, int, float]


@dataclass
class Position:
    """How far a run has come; plain numbers, written to `state.json`.

    stage, step: index of the stage, and how many of its steps are done.
    total: steps of all stages so far.
    skipped, in_a_row: steps of this stage skipped because they were not finite, and the last of them in a row.
    averages: moving averages of the losses by name, and of the objective.
    tokens: positions that were not padding, in this stage.
    seconds: spent in this stage's steps.
    metrics: bytes of metrics.jsonl that belong to these steps.
    left_out: by stage, the samples that cannot be used: those known before, and of a stage that has ended, all.
    batches: position of each rank's batches.
    random: state of each rank's random numbers other than torch's.
    data: identity of each data source that was trained on last.
    """

    stage: Natural = 0
    step: Natural = 0
    total: Natural = 0
    skipped: Natural = 0
    in_a_row: Natural = 0
    averages: dict[str, float] = field(default_factory=dict)
    tokens: Natural = 0
    seconds: float = 0.0
    metrics: Natural = 0
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    batches: list[MixturePosition] = field(default_factory=list)
    random: list[RandomPosition] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """What the best checkpoint of a stage has least of: the moving average of the training objective."""
        return self.averages.get("objective", float("inf"))

    def next_stage(self) -> None:
        fresh = Position(
            stage=self.stage + 1,
            total=self.total,
            metrics=self.metrics,
            left_out=self.left_out,
            data=self.data,
        )
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))


def read_position(path: Path) -> tuple[Position, int]:
    """The position in a `state.json`, and the number of processes; raises CheckpointError for anything else."""
    record: Any = read_json(path)
    expected = {each.name for each in fields(Position)} | {"score", "world"}
    if not isinstance(record, dict) or record.keys() != expected:
        missing = ", ".join(sorted(expected ^ set(record))) if isinstance(record, dict) else "all"
        raise CheckpointError(f"{path}: missing or left over: {missing}")
    record.pop("score")
    world = record.pop("world")
    try:
        TypeAdapter(Position).validate_json(json.dumps(record), strict=True)
        TypeAdapter(Natural).validate_python(world, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "world"
        raise CheckpointError(f"{path}: {where}: {first['msg'].lower()}") from None
    if not len(record["batches"]) == len(record["random"]) == world:
        raise CheckpointError(
            f"{path} is of {world} processes but has the batches of {len(record['batches'])} and the random "
            f"numbers of {len(record['random'])}"
        )
    return Position(**record), world
