"""What each arm is worth in data, in numbers and a sentence for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np

from chiasm.studies.compare import Comparison, compare
from chiasm.studies.curves import (
    LEAST_SIZES,
    Crossing,
    DataCurve,
    Exchange,
    Exponent,
    Scores,
    by_size,
    crossing,
    data_curve,
    exchange,
    exponent,
)
from chiasm.studies.plan import Study


@dataclass(frozen=True)
class DataAnswer:
    """An arm over amounts of data, and the one that it stands beside; of the baseline there is none."""

    arm: str
    curve: DataCurve
    reference: DataCurve | None
    sizes: Mapping[int, Comparison]
    exchange: Exchange | None
    crossing: Crossing | None
    exponent: Exponent | None
    sentence: str


def data_answers(study: Study, records: Sequence[Mapping[str, Any]]) -> list[DataAnswer]:
    """One answer an arm, the baseline's first; none where the study has one amount of data."""
    if study.data is None or len(study.data.sizes) < 2:
        return []
    scores = {arm: by_size(records, arm, study.data.sizes) for arm in study.arms}
    answers = []
    for arm in sorted(study.arms, key=lambda arm: arm != study.baseline):
        base = study.reference_of(arm)
        seeds = sorted(scores[arm].keys() & scores[base].keys())
        if seeds:
            own, other = (np.array([scores[each][seed] for seed in seeds]) for each in (arm, base))
            answers.append(_answer(study, arm, own, other))
    return answers


def _answer(study: Study, arm: str, own: Scores, other: Scores) -> DataAnswer:
    """own, other: scores of the arm and of the one beside it, by seed and size."""
    assert study.data is not None
    sizes, unit, base = study.data.sizes, study.data.unit, study.reference_of(arm)
    curve, law = data_curve(sizes, own), exponent(sizes, own)
    growth = f"twice the {unit} give {100 * curve.slope:+.1f} points{_law(law, sizes, unit)}"
    if arm == study.baseline:
        return DataAnswer(arm, curve, None, {}, None, None, law, f"{arm}: {growth}.")
    rate, cross = exchange(sizes, own, other), crossing(sizes, own, other)
    compared = {
        size: compare(dict(zip((arm, base), map(_by_seed, columns), strict=True)), base, study.margin)[0]
        for size, columns in zip(sizes, zip(own.T, other.T, strict=True), strict=True)
    }
    sentence = f"{arm}: {_rate(base, rate)}; {growth}."
    if cross is not None:
        ahead = arm if cross.ahead else base
        sentence += (
            f" The two cross at {cross.size:,.0f} {unit} [{_size(cross.low)}, {_size(cross.high)}]; behind it "
            f"{ahead} does better."
        )
    return DataAnswer(arm, curve, data_curve(sizes, other), compared, rate, cross, law, sentence)


def _by_seed(scores: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(map(float, scores)))


def _law(law: Exponent | None, sizes: Sequence[int], unit: str) -> str:
    if law is not None:
        return f"; its error falls as {unit}^-{law.value:.2f} [{law.low:.2f}, {law.high:.2f}], r {law.r:.3f}"
    return f"; an exponent is told from {LEAST_SIZES} sizes on" if len(sizes) < LEAST_SIZES else ""


def _rate(base: str, rate: Exchange | None) -> str:
    if rate is None:
        return f"no exchange rate, for {base} gains nothing from more data"
    if (rate.low, rate.high) == (0, inf):
        return f"no exchange rate: what {base} gains from more data is not resolved"
    beyond = "" if rate.measured else ", beyond what was measured"
    return f"worth {rate.rate:.2g} times the data of {base} [{rate.low:.2g}, {rate.high:.2g}]{beyond}"


def _size(size: float) -> str:
    return f"{size:,.0f}" if isfinite(size) and size < 1e12 else "∞"
