"""The report of a study, from its records alone: a page, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from chiasm.errors import ChiasmError
from chiasm.studies.compare import Comparison, by_arm, compare, interval
from chiasm.studies.plan import Study, cells_of, load_study
from chiasm.studies.runner import records_of

SAME = 0.02  # relative difference up to which a cost counts as matched
LEAK = 0.1  # by which a model without images may beat the commonest answer


@dataclass(frozen=True)
class ArmRow:
    """One arm: its scores by seed with an interval, its controls, what it cost, and what is wrong with it."""

    name: str
    about: str
    scores: Sequence[float]
    score: float
    low: float
    high: float
    controls: Mapping[str, float]
    costs: Mapping[str, float]
    comparison: Comparison | None
    warnings: Sequence[str]


def write_report(folder: Path) -> tuple[str, Path]:
    """Write `report.md` and `report.html` of a study's folder, from its records; raises ChiasmError without any.

    Returns the verdict in one sentence, and the page.
    """
    if not (folder / "study.yaml").is_file():
        raise ChiasmError(f"{folder} is no study's folder: it has no study.yaml")
    study = load_study(folder / "study.yaml")
    cells = cells_of(study)
    content = content_of(study, records_of(folder, cells), len(cells))
    environment = Environment(
        loader=PackageLoader("chiasm.studies"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": lambda share: f"{100 * share:.1f} %", "signed": _signed, "big": _big}
    page = Environment(
        loader=environment.loader,
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= environment.filters
    for name, templates in (("report.md", environment), ("report.html", page)):
        (folder / name).write_text(templates.get_template(f"{name}.j2").render(content), encoding="utf-8")
    return content["headline"], folder / "report.html"


def content_of(study: Study, records: Sequence[Mapping[str, Any]], cells: int) -> dict[str, Any]:
    """What both forms of the report show."""
    table = by_arm(records)
    if study.baseline not in table:
        raise ChiasmError(f"study {study.name!r} has no record of its baseline {study.baseline!r} yet")
    scores = {
        arm: {seed: each["score"] for seed, each in table[arm].items()} for arm in study.arms if arm in table
    }
    comparisons = {each.arm: each for each in compare(scores, study.baseline, study.margin)}
    rows = [_row(study, arm, table[arm], comparisons.get(arm)) for arm in scores]
    concludes = all(preset.concludes for preset in study.presets.values())
    return {
        "study": study,
        "rows": rows,
        "cells": cells,
        "measured": len(records),
        "concludes": concludes,
        "headline": headline(study, rows, concludes and len(records) == cells),
        "matched": {kind: _matched(rows, kind) for kind in study.match},
        "seconds": sum(record["seconds"] for record in records),
        "span": _span(rows),
    }


def headline(study: Study, rows: Sequence[ArmRow], concludes: bool) -> str:
    """The verdict in one sentence, with its numbers."""
    if not concludes:
        return "This run is too small to conclude anything; it shows that every arm trains and is measured."
    parts = []
    for row in rows:
        found = row.comparison
        if found is None:
            continue
        reach = f"{_signed(found.difference)} [{_signed(found.low)}, {_signed(found.high)}]"
        if found.word == "not resolved":
            seen = f"a difference below {100 * found.smallest:.1f} points could not be seen"
            parts.append(f"{row.name}: not resolved ({reach}; {seen})")
        else:
            parts.append(f"{row.name}: {found.word} ({reach})")
    return f"Beside {study.baseline}, by {study.endpoint}: " + "; ".join(parts) + "."


def _row(
    study: Study, arm: str, records: Mapping[int, Mapping[str, Any]], comparison: Comparison | None
) -> ArmRow:
    ordered = [records[seed] for seed in sorted(records)]
    scores = [record["score"] for record in ordered]
    items = [record["items"] or [record["score"]] for record in ordered]
    low, high = interval(items)
    names = {name for record in ordered for name in record["controls"]}
    controls = {
        name: mean(r["controls"][name] for r in ordered if name in r["controls"]) for name in sorted(names)
    }
    costs = {
        "samples": mean(record["samples"] for record in ordered),
        "parameters": mean(record["parameters"] for record in ordered),
        "flops": mean(record["flops"].get("question") or 0 for record in ordered),
        "tokens": mean(record["tokens"] for record in ordered),
        "image tokens": mean(record["image_tokens"].get("read") or 0 for record in ordered),
        "processor seconds": mean(record["seconds"] for record in ordered),
    }
    return ArmRow(
        arm,
        study.arms[arm].about,
        scores,
        mean(scores),
        low,
        high,
        controls,
        costs,
        comparison,
        _warnings(low, controls),
    )


def _warnings(low: float, controls: Mapping[str, float]) -> list[str]:
    """What the controls say against an arm."""
    warnings = []
    blind = controls.get("blind")
    if blind is not None and low <= blind:
        warnings.append(
            "no better than without its images: it does not see, or the questions do not ask for it"
        )
    if blind is not None and blind > controls.get("commonest", 1.0) + LEAK:
        warnings.append("without images it beats the commonest answer: the questions give answers away")
    if "shuffled" in controls and low <= controls["shuffled"]:
        warnings.append("no better than with the images of other questions")
    return warnings


def _matched(rows: Sequence[ArmRow], kind: str) -> str:
    """How equal the arms are in what the study says it holds equal."""
    values = [row.costs[kind] for row in rows]
    least, most = min(values), max(values)
    if most <= least * (1 + SAME):
        return f"equal in all arms ({_big(mean(values))})"
    return f"NOT equal: from {_big(least)} to {_big(most)}"


def _span(rows: Sequence[ArmRow]) -> tuple[float, float]:
    """Ends of the axis of scores."""
    values = [each for row in rows for each in (*row.scores, row.low, row.high, *row.controls.values())]
    room = 0.05 * (max(values) - min(values) or 1.0)
    return max(0.0, min(values) - room), min(1.0, max(values) + room)


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}" if isfinite(share) else ("-∞" if share < 0 else "+∞")


def _big(number: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.2f} {name}"
    return f"{number:.0f}"
