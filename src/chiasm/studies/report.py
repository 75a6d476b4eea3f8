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
from chiasm.studies import charts
from chiasm.studies.budget import equal_within
from chiasm.studies.compare import Comparison, by_arm, compare, interval, over_sizes
from chiasm.studies.design import best_rate
from chiasm.studies.plan import Study, load_study
from chiasm.studies.records import read_records
from chiasm.studies.worth import data_answers

LEAK = 0.1  # by which a model without images may beat the commonest answer
Records = Sequence[Mapping[str, Any]]


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


@dataclass(frozen=True)
class SecondaryRow:
    """An arm by another endpoint than the one that decides."""

    endpoint: str
    arm: str
    score: float
    controls: Mapping[str, float]
    comparison: Comparison | None


def write_report(folder: Path) -> tuple[str, Path]:
    """Write `report.md` and `report.html` of a study's folder, from its records; raises ChiasmError without any.

    Returns the verdict in one sentence, and the page.
    """
    if not (folder / "study.yaml").is_file():
        raise ChiasmError(f"{folder} is no study's folder: it has no study.yaml")
    study = load_study(folder / "study.yaml")
    content = content_of(study, *read_records(folder))
    for name, escapes in (("report.md", False), ("report.html", True)):
        environment = Environment(
            loader=PackageLoader("chiasm.studies"),
            undefined=StrictUndefined,
            autoescape=escapes,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"percent": _percent, "signed": signed, "big": charts.big, "times": _times}
        text = environment.get_template(f"{name}.j2").render(content, charts=charts)
        (folder / name).write_text(text, encoding="utf-8")
    return content["headline"], folder / "report.html"


def content_of(study: Study, records: Records, swept: Records, cells: int) -> dict[str, Any]:
    """What both forms of the report show."""
    scores = over_sizes(records, study.sizes)
    if not scores.get(study.baseline):
        raise ChiasmError(f"study {study.name!r} has no record of its baseline {study.baseline!r} yet")
    scores = {arm: scores[arm] for arm in study.arms if scores.get(arm)}
    comparisons = {each.arm: each for each in compare(scores, study.baseline, study.margin, study.references)}
    table = by_arm(records)
    rows = [_row(study, arm, scores[arm], table[arm], comparisons.get(arm)) for arm in scores]
    large, whole = all(preset.concludes for preset in study.presets.values()), len(records) == cells
    return {
        "study": study,
        "rows": rows,
        "cells": cells,
        "measured": len(records),
        "concludes": large and whole,
        "headline": headline(study, rows) if large and whole else _why_none(large, len(records), cells),
        "needed": _needed(rows) if large and whole else None,
        "matched": {kind: _matched(rows, kind) for kind in study.match},
        "unmatched": [
            kind
            for kind in ("samples", "tokens", "training FLOPs", "parameters", "image tokens")
            if not equal_within([row.costs[kind] for row in rows])
        ],
        "seconds": sum(record["seconds"] for record in (*records, *swept)),
        "data": data_answers(study, records),
        "secondary": _secondary(study, records),
        "sweep": _sweep(study, swept),
        "controls": list(dict.fromkeys(name for row in rows for name in row.controls)),
        "versions": next((record["versions"] for record in records if record.get("versions")), {}),
    }


def headline(study: Study, rows: Sequence[ArmRow]) -> str:
    """The verdict in one sentence, with its numbers."""
    parts = []
    for row in rows:
        comparison = row.comparison
        if comparison is None:
            continue
        reach = f"{signed(comparison.difference)} [{signed(comparison.low)}, {signed(comparison.high)}]"
        name = (
            row.name
            if comparison.reference == study.baseline
            else f"{row.name} beside {comparison.reference}"
        )
        if comparison.word == "not resolved":
            seen = f"a difference below {100 * comparison.smallest:.1f} points could not be seen"
            parts.append(f"{name}: not resolved ({reach}; {seen}{_would_do(comparison)})")
        else:
            parts.append(f"{name}: {comparison.word} ({reach})")
    return f"Beside {study.baseline}, by {study.endpoint}, in points: " + "; ".join(parts) + "."


def _why_none(large: bool, measured: int, cells: int) -> str:
    """Why nothing is concluded."""
    if measured < cells:
        return f"{measured} of {cells} cells are measured; nothing is concluded before all are."
    return "This run is too small to conclude anything; it shows that every arm trains and is measured."


def _would_do(comparison: Comparison) -> str:
    if comparison.needed is None:
        return ""
    return f", {comparison.needed} seeds would do"


def _needed(rows: Sequence[ArmRow]) -> dict[str, float] | None:
    """Seeds with which every arm would be resolved, and the processor hours that they take."""
    unresolved = [
        row.comparison.needed
        for row in rows
        if row.comparison is not None and row.comparison.word == "not resolved" and row.comparison.needed
    ]
    if not unresolved:
        return None
    seeds = max(unresolved)
    return {"seeds": seeds, "hours": seeds * sum(row.costs["processor seconds"] for row in rows) / 3600}


def _row(
    study: Study, arm: str, scores: Mapping[int, float], records: Records, comparison: Comparison | None
) -> ArmRow:
    counted = [record for record in records if record["seed"] in scores]
    low, high = interval(
        [
            [item for r in counted if r["seed"] == seed for item in r["items"] or [r["score"]]]
            for seed in sorted(scores)
        ]
    )
    controls = _means([record["controls"] for record in counted])
    values = [scores[seed] for seed in sorted(scores)]
    return ArmRow(
        arm,
        study.arms[arm].about,
        values,
        mean(values),
        low,
        high,
        controls,
        _costs(counted, len(scores)),
        comparison,
        warnings_of(low, controls),
    )


def _costs(records: Records, seeds: int) -> dict[str, float]:
    """Means over cells; processor seconds are those of all cells of a seed."""

    def each(key: str) -> float:
        return mean(record[key] for record in records)

    def inner(key: str, *names: str) -> float:
        return mean(next((r[key][name] for name in names if r[key].get(name)), 0) for r in records)

    return {
        "samples": each("samples"),
        "tokens": each("tokens"),
        "training FLOPs": each("training_flops"),
        "parameters": each("parameters"),
        "image tokens": inner("image_tokens", "read", "written"),
        "FLOPs an answer": inner("flops", "question", "picture"),
        "seconds an answer": inner("answer_seconds", "answer", "picture"),
        "processor seconds": sum(record["seconds"] for record in records) / seeds,
    }


def _means(controls: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in controls for name in each)
    return {name: mean(each[name] for each in controls if name in each) for name in names}


def warnings_of(low: float, controls: Mapping[str, float]) -> list[str]:
    """What the controls say against an arm."""
    warnings = []
    blind = controls.get("blind")
    if blind is not None and low <= blind:
        warnings.append(
            "no better than without its images: it does not see, or the questions do not ask for it"
        )
    if low <= controls.get("commonest", -1.0):
        warnings.append("no better than giving always the commonest answer")
    if blind is not None and blind > controls.get("commonest", 1.0) + LEAK:
        warnings.append("without images it beats the commonest answer: the questions give answers away")
    if "shuffled" in controls and low <= controls["shuffled"]:
        warnings.append("no better than when images and questions are paired wrongly")
    if low <= controls.get("everything", -1.0):
        warnings.append("no better than marking everything")
    if "copying" in controls and low <= controls["copying"]:
        warnings.append("no better than giving back the last image")
    if controls.get("oracle", 1.0) < low:
        warnings.append("better than the truth as it is judged: the judge is wrong")
    return warnings


def _matched(rows: Sequence[ArmRow], kind: str) -> str:
    """How equal the arms are in what the study says it holds equal."""
    values = [row.costs["training FLOPs" if kind == "flops" else kind] for row in rows]
    if equal_within(values):
        return f"equal in all arms ({charts.big(mean(values))})"
    return f"NOT equal: from {charts.big(min(values))} to {charts.big(max(values))}"


def _secondary(study: Study, records: Records) -> list[SecondaryRow]:
    """All arms by all other endpoints; the probabilities are corrected for all of them together."""
    scores = {name: over_sizes(records, study.sizes, name) for name in study.secondary}
    paired = {
        f"{name}/{arm}": {
            seed: by_seed[seed] - base for seed, base in arms[study.baseline].items() if seed in by_seed
        }
        for name, arms in scores.items()
        for arm, by_seed in arms.items()
        if arm != study.baseline
    }
    none = {seed: 0.0 for by_seed in paired.values() for seed in by_seed}
    comparisons = {each.arm: each for each in compare({"": none, **paired}, "", study.margin)}
    return [
        SecondaryRow(
            name,
            arm,
            mean(scores[name][arm].values()),
            _means([r["secondary"][name]["controls"] for r in records if r["arm"] == arm]),
            comparisons.get(f"{name}/{arm}"),
        )
        for name in study.secondary
        for arm in study.arms
        if scores[name].get(arm)
    ]


def _sweep(study: Study, swept: Records) -> list[dict[str, Any]]:
    """Each arm's score by the multiple of its learning rates, and the one that was chosen."""
    rows = []
    for arm, records in by_arm(swept).items():
        scores = {record["rate"]: record["score"] for record in sorted(records, key=lambda r: r["rate"])}
        best = best_rate(scores)
        edge = len(scores) > 1 and best in (min(scores), max(scores))
        rows.append({"arm": arm, "scores": scores, "chosen": best, "edge": edge})
    return sorted(rows, key=lambda row: list(study.arms).index(row["arm"]))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def signed(share: float) -> str:
    """In points."""
    return f"{100 * share:+.1f}" if isfinite(share) else ("-∞" if share < 0 else "+∞")


def _times(multiple: float) -> str:
    return f"{multiple:.2g}×" if isfinite(multiple) else "∞"
