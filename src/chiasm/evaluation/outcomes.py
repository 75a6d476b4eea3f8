"""Running a task, and what it gives: of the user's own tasks, only what files and the report can hold."""

from __future__ import annotations

import json
import math
from typing import Any

from chiasm.errors import ChiasmError, quoted, reason
from chiasm.evaluation.report import numbers
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task
from chiasm.parts.plugins import failure, is_own


class FailedTask(ChiasmError):
    """A task of the user's own fails, or gives what cannot be written down."""


def run_task(task: Task, exam: Exam) -> Outcome:
    """What a task gives; raises NotApplicable as it does, and FailedTask for one of the user's own."""
    if not is_own(type(task)):
        return task.run(exam)
    try:
        outcome = task.run(exam)
    except NotApplicable:
        raise
    except (Exception, SystemExit) as error:
        raise FailedTask(f"the evaluation task {task.name!r} fails: {failure(error, type(task))}") from error
    if problem := _problem(outcome):
        raise FailedTask(f"task {task.name!r} gives {problem}")
    return outcome


def _problem(outcome: Any) -> str | None:
    """What files and the report cannot hold of what a task gives, as the end of a sentence."""
    if not isinstance(outcome, Outcome):
        return f"{quoted(outcome)}; it must be an Outcome"
    for what, value in {"scores": outcome.scores, "samples": outcome.samples}.items():
        if not isinstance(value, dict):
            return f"{what} {quoted(value)}; they must be a dict"
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            return f"{what} that are no JSON: {reason(error)}"
    for name, figure in numbers(outcome.scores).items():
        if not math.isfinite(figure):
            return f"{figure} for {name!r}; leave out what has no number"
    score, interval = outcome.scores.get("score", 0.0), outcome.scores.get("ci", [0.0, 0.0])
    if not _is_finite(score):
        return f"{quoted(score)} for 'score'; it must be a number"
    if not (isinstance(interval, list | tuple) and len(interval) == 2 and all(map(_is_finite, interval))):
        return f"{quoted(interval)} for 'ci'; it must be two numbers"
    return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
