"""What each arm is worth in data, in sentences and numbers for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from chiasm.studies.compare import Comparison, compare
from chiasm.studies.curves import (
    LEAST_SIZES,
    Crossing,
    DataCurve,
    Exchange,
    Exponent,
    by_size,
    crossing,
    data_curve,
    exchange,
    exponent,
)
from chiasm.studies.plan import Study


@dataclass(frozen=True)
class DataAnswer:
    """An arm over amounts of data. sizes: how it stands beside the baseline at each of them."""

    arm: str
    curve: DataCurve
    sizes: Mapping[int, Comparison]
    exchange: Exchange | None
    crossing: Crossing | None
    exponent: Exponent | None
    sentence: str


def data_answers(study: Study, records: Sequence[Mapping[str, Any]]) -> list[DataAnswer]:
    """One answer an arm, the baseline's first; none where the study has one amount of data."""
    if study.data is None or len(study.data.sizes) < 2:
        return []
    sizes = study.data.sizes
    scores = {arm: by_size(records, arm, sizes) for arm in study.arms}
    answers = []
    for arm in sorted(study.arms, key=lambda arm: arm != study.baseline):
        base = study.base_of(arm)
        seeds = sorted(scores[arm].keys() & scores[base].keys())
        if not seeds:
            continue
        own, other = (np.array([scores[each][seed] for seed in seeds]) for each in (arm, base))
        curve, law = data_curve(sizes, own), exponent(sizes, own)
        if arm == study.baseline:
            answers.append(_answer(study, arm, curve, {}, None, None, law))
            continue
        compared = {
            size: compare(
                {arm: dict(enumerate(own[:, i])), base: dict(enumerate(other[:, i]))}, base, study.margin
            )[0]
            for i, size in enumerate(sizes)
        }
        found = exchange(sizes, own, other), crossing(sizes, own, other)
        answers.append(_answer(study, arm, curve, compared, *found, law))
    return answers


def _answer(
    study: Study,
    arm: str,
    curve: DataCurve,
    compared: Mapping[int, Comparison],
    rate: Exchange | None,
    cross: Crossing | None,
    law: Exponent | None,
) -> DataAnswer:
    assert study.data is not None
    doubling = f"twice the {study.data.unit} give {100 * curve.slope:+.1f} points"
    law_words = (
        f"; its error falls as {study.data.unit}^-{law.value:.2f} [{law.low:.2f}, {law.high:.2f}], r {law.r:.3f}"
        if law is not None
        else f"; an exponent is told from {LEAST_SIZES} sizes on"
        if len(curve.sizes) < LEAST_SIZES
        else ""
    )
    if arm == study.baseline:
        return DataAnswer(arm, curve, compared, rate, cross, law, f"{arm}: {doubling}{law_words}.")
    base = study.base_of(arm)
    sentence = f"{arm}: {_rate(base, rate)}; {doubling}{law_words}."
    if cross is not None:
        winner = arm if cross.ahead else base
        sentence += (
            f" The two cross at {cross.size:,.0f} {study.data.unit} [{_size(cross.low)}, {_size(cross.high)}]; "
            f"behind it {winner} does better."
        )
    return DataAnswer(arm, curve, compared, rate, cross, law, sentence)


def _rate(base: str, rate: Exchange | None) -> str:
    if rate is None:
        return f"no exchange rate, for {base} gains nothing from more data"
    if (rate.low, rate.high) == (0, float("inf")):
        return f"no exchange rate: what {base} gains from more data is not resolved"
    beyond = "" if rate.measured else ", beyond what was measured"
    return f"worth {rate.rate:.2g} times the data of {base} [{rate.low:.2g}, {rate.high:.2g}]{beyond}"


def _size(size: float) -> str:
    return f"{size:,.0f}" if isfinite(size) and size < 1e12 else "∞"
