"""Curves of a run's training by stage, time and tokens, from its metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chiasm.evaluation import plots

Metrics = Sequence[Mapping[str, Any]]


def training(metrics: Metrics) -> dict[str, Any]:
    """Time (seconds), tokens without padding, samples, and all of them with the steps of each stage.

    Samples are left out where some line lacks them, as those of older runs do: their sum is not known.
    """
    stages: dict[str, dict[str, Any]] = {}
    for line in metrics:
        stage = stages.setdefault(_stage(line), {"steps": 0, "seconds": 0.0, "tokens": 0, "samples": 0})
        stage["steps"] = max(stage["steps"], int(line["step"]))
        stage["seconds"] += float(line.get("seconds") or 0)
        stage["tokens"] += int(line.get("real") or 0)
        stage["samples"] += int(line.get("samples") or 0)
    for name in {_stage(line) for line in metrics if "samples" not in line}:
        del stages[name]["samples"]
    if not stages:
        return {}
    known = [key for key in ("seconds", "tokens", "samples") if all(key in each for each in stages.values())]
    return {**{key: sum(stage[key] for stage in stages.values()) for key in known}, "stages": stages}


def curves(metrics: Metrics) -> list[dict[str, Any]]:
    """For each stage its curves by name: losses, then the codebook's health, speed, data and learning rate."""
    stages: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in metrics:
        series = stages.setdefault(_stage(line), {})
        for name, value in _quantities(line):
            series.setdefault(name, []).append((float(line["step"]), value))
    return [
        {
            "name": stage,
            "curves": [_curve(name, points) for name, points in series.items() if _varies(points)],
        }
        for stage, series in stages.items()
    ]


def _quantities(line: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The numbers of a line that become curves, in the order of the report."""
    quantities = [(f"loss: {name}", value) for name, value in _of(line, "losses")]
    quantities += [(name.replace("_", " "), value) for name, value in _of(line, "health")]
    seconds, real = line.get("seconds"), line.get("real")
    if seconds and real:
        quantities.append(("tokens/s", real / seconds))
    if seconds and line.get("pictures"):
        quantities.append(("pictures/s", line["pictures"] / seconds))
    if real and line.get("places"):
        quantities.append(("share of real tokens", real / line["places"]))
    rates = [value for _, value in _of(line, "lr")]
    if rates:
        quantities.append(("learning rate", max(rates)))
    return [
        (name, float(v)) for name, v in quantities if isinstance(v, int | float) and abs(v) < float("inf")
    ]


def _of(line: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    value = line.get(key)
    numbers = value.items() if isinstance(value, Mapping) else []
    return [(str(name), number) for name, number in numbers if isinstance(number, int | float)]


def _curve(name: str, points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    steps, values = zip(*points, strict=True)
    return {"name": name, "last": plots.number(values[-1]), "svg": plots.curve(name, steps, values)}


def _varies(points: Sequence[tuple[float, float]]) -> bool:
    return len({value for _, value in points}) > 1


def _stage(line: Mapping[str, Any]) -> str:
    return str(line.get("stage", "training"))
