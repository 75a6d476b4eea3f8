"""Replays parity cases with Chiasm's parts and compares every output with the original's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError, nearest
from chiasm.interop.config import Config, refuse_unread
from chiasm.interop.parity.cases import Case, read_cases
from chiasm.parts.registry import Registry

Replay = Callable[[Case], Mapping[str, Tensor]]
Table = Callable[[Case], list[dict[str, Any]]]

# By `SYSTEM/BEGINNING OF THE CLASS` and `SYSTEM/KIND OF TABLE`; they stand in the files of their families.
_replays: Registry[Replay] = Registry("replay", "chiasm.interop.families", CheckpointError)
_tables: Registry[Table] = Registry("table replay", "chiasm.interop.families", CheckpointError)


def replays(
    system: str, *classes: str, without_effect: Mapping[str, str] | None = None
) -> Callable[[Replay], Replay]:
    """Marks the function that replays a system's cases of these classes (`reference.class`, or how it begins).

    It is given the case and returns the outputs by name.

    without_effect: keys of the case's config that do not reach its outputs, with the reasons; as in `Family`, what
        is neither read nor listed fails the case, and None stands for a replay whose keys are not accounted for.
    """

    def mark(function: Replay) -> Replay:
        replay = function if without_effect is None else _accounting(function, without_effect)
        for each in classes:
            _replays.add(f"{system}/{each}", replay)
        return function

    return mark


def _accounting(function: Replay, without_effect: Mapping[str, str]) -> Replay:
    @wraps(function)
    def replay(case: Case) -> Mapping[str, Tensor]:
        config = Config(case.config)
        accounted = copy(case)  # with what has been read of its tensors
        accounted.record = {**case.record, "config": config}
        outputs = function(accounted)
        refuse_unread(config, without_effect, case.name, "the replay")
        return outputs

    return replay


def replays_table(system: str, kind: str = "tile table") -> Callable[[Table], Table]:
    """Marks the function that answers a system's tables: all rows, from `case.parameters` and their questions."""

    def mark(function: Table) -> Table:
        _tables.add(f"{system}/{kind}", function)
        return function

    return mark


@dataclass(frozen=True)
class Output:
    """How far one output is from the original's.

    error: the largest; tolerance: what is allowed at the element that is worst off; both in the output's unit,
    or for exact outputs the number of elements (rows) that differ, and 0.
    """

    name: str
    agrees: bool
    error: float
    tolerance: float
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """The result of one case; `problem`: why there are no outputs."""

    case: str
    path: str
    agrees: bool
    outputs: list[Output] = field(default_factory=list)
    problem: str = ""

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{'agrees' if self.agrees else 'DIFFERS'}  {self.case}{'  ' if self.problem else ''}{self.problem}"
        ]
        for each in self.outputs:
            mark = " " if each.agrees else "!"
            figures = f"error {each.error:.3g}, tolerance {each.tolerance:.3g}"
            lines.append(f"  {mark} {each.name}: {figures}{'  ' if each.problem else ''}{each.problem}")
        return "\n".join(lines)


def verify(paths: Iterable[str | Path], report: Callable[[Result], None] | None = None) -> list[Result]:
    """Replay the cases of files and folders; `report` is called with each result as it comes.

    Raises CheckpointError for a path without cases. A replay that fails is a result with the reason.
    """
    results = []
    for case in read_cases(paths):
        results.append(_replayed(case))
        if report is not None:
            report(results[-1])
    return results


def summary(results: list[Result]) -> str:
    return f"{sum(each.agrees for each in results)} of {len(results)} cases agree"


def _replayed(case: Case) -> Result:
    registered: Mapping[str, Any] = (_tables if case.is_table else _replays).items()
    matching = [name for name in registered if f"{case.system}/{case.of}".startswith(name)]
    if not matching:
        systems = {name.partition("/")[0] for name in registered}
        lacks = (
            f"no replay of {case.of!r}"
            if case.system in systems
            else f"the system {case.system!r} is unknown{nearest(case.system, systems)}"
        )
        return Result(case.name, str(case.path), False, problem=lacks)
    replay = registered[max(matching, key=len)]
    try:
        if case.is_table:
            outputs = [_compared_rows(case.record["rows"], replay(case))]
        else:
            outputs = compared(case, replay(case))
    except Exception as error:  # whatever fails in one case must not hide the others
        return Result(case.name, str(case.path), False, problem=f"{type(error).__name__}: {error}")
    return Result(case.name, str(case.path), all(each.agrees for each in outputs), outputs)


def compared(case: Case, reproduced: Mapping[str, Tensor]) -> list[Output]:
    """Each output of a case compared with the reproduced one."""
    masks = case.record.get("zero_where_mask_is_0", {})
    outputs = []
    for name, rule in case.record["outputs"].items():
        if name not in reproduced:
            outputs.append(Output(name, False, float("inf"), 0.0, "was not made"))
            continue
        ours, theirs = reproduced[name].detach(), case.outputs[name]
        if ours.shape != theirs.shape:
            shapes = f"has the shape {tuple(ours.shape)}, not {tuple(theirs.shape)}"
            outputs.append(Output(name, False, float("inf"), 0.0, shapes))
            continue
        if name in masks:
            mask = _mask(case, masks[name], theirs)
            ours, theirs = torch.where(mask, ours, 0), torch.where(mask, theirs, 0)
        outputs.append(_compared(name, ours, theirs, rule))
    return outputs


def _compared(name: str, ours: Tensor, theirs: Tensor, rule: Mapping[str, Any]) -> Output:
    if rule.get("exact"):
        wrong = int((ours != theirs).sum())
        return Output(name, wrong == 0, wrong, 0.0, f"{wrong} of {theirs.numel()} differ" if wrong else "")
    ours, theirs = ours.double(), theirs.double()
    error = torch.where(ours == theirs, 0.0, (ours - theirs).abs())
    allowed = rule["atol"] + rule["rtol"] * theirs.abs()
    agrees = bool((error <= allowed).all())  # False for what is not a number
    if not error.numel():
        return Output(name, True, 0.0, rule["atol"])
    worst = (error / allowed).nan_to_num(nan=float("inf")).argmax()
    return Output(
        name, agrees, float(error.nan_to_num(nan=float("inf")).max()), float(allowed.flatten()[worst])
    )


def _mask(case: Case, place: str, reference: Tensor) -> Tensor:
    group, _, name = place.partition("/")
    mask = (case.inputs if group == "input" else case.outputs)[name].bool()
    return mask.reshape(*mask.shape, *[1] * (reference.ndim - mask.ndim))


def _compared_rows(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> Output:
    if len(ours) != len(theirs):
        return Output("rows", False, float("inf"), 0.0, f"{len(ours)} rows were made, not {len(theirs)}")
    wrong = [
        i
        for i, (our_row, their_row) in enumerate(zip(ours, theirs, strict=True))
        if _plain(our_row) != their_row
    ]
    problem = ""
    if wrong:
        our_row, their_row = _plain(ours[wrong[0]]), theirs[wrong[0]]
        keys = [key for key in their_row.keys() | our_row.keys() if our_row.get(key) != their_row.get(key)]
        problem = f"{len(wrong)} of {len(theirs)} differ; row {wrong[0]}: " + ", ".join(
            f"{key} {our_row.get(key)} instead of {their_row.get(key)}" for key in sorted(keys)
        )
    return Output("rows", not wrong, len(wrong), 0.0, problem)


def _plain(value: Any) -> Any:
    """As JSON would have it: tuples are lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
