"""Arms beside a baseline: differences by seed, what can be said of them, and what could have been seen.

The unit is the seed. Arms with one seed answer the same questions after training on data in the same order, so that
their scores are compared pair by pair; the spread of those differences holds that of seeds and of questions alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

Word = Literal["different", "equivalent", "not resolved"]
LEVEL = 0.05
POWER = 0.8
DRAWS = 4000  # of the bootstrap


@dataclass(frozen=True)
class Comparison:
    """An arm beside the baseline.

    difference, low, high: mean over seeds and its 95 % interval (Student's, paired by seed).
    p: of no difference, corrected for all arms of the study (Holm, 1979). p_equivalence: of a difference of the
    margin or more (two one-sided tests, Schuirmann 1987).
    smallest: the least difference that would be seen with 80 % power.
    """

    arm: str
    difference: float
    low: float
    high: float
    p: float
    p_equivalence: float
    smallest: float
    seeds: int
    word: Word


def verdict(p: float, p_equivalence: float) -> Word:
    """The one place where a word is chosen; `equivalent` has a test of its own, and is not a lack of evidence."""
    if p_equivalence < LEVEL:
        return "equivalent"
    return "different" if p < LEVEL else "not resolved"


def compare(scores: Mapping[str, Mapping[int, float]], baseline: str, margin: float) -> list[Comparison]:
    """Every arm beside the baseline. scores: by arm and seed."""
    arms = [arm for arm in scores if arm != baseline]
    paired = {
        arm: np.array(
            [scores[arm][s] - scores[baseline][s] for s in sorted(scores[arm]) if s in scores[baseline]]
        )
        for arm in arms
    }
    ps = holm([_p_of_none(paired[arm]) for arm in arms])
    return [_comparison(arm, paired[arm], p, margin) for arm, p in zip(arms, ps, strict=True)]


def _comparison(arm: str, differences: Float[np.ndarray, " s"], p: float, margin: float) -> Comparison:
    n = len(differences)
    mean = float(differences.mean()) if n else 0.0
    if n < 2:
        return Comparison(arm, mean, -inf, inf, 1.0, 1.0, inf, n, "not resolved")
    error = float(differences.std(ddof=1)) / sqrt(n)
    reach = float(stats.t.ppf(1 - LEVEL / 2, n - 1))
    smallest = (reach + float(stats.t.ppf(POWER, n - 1))) * error
    p_equivalence = _p_of_margin(mean, error, n, margin)
    word = verdict(p, p_equivalence)
    return Comparison(
        arm, mean, mean - reach * error, mean + reach * error, p, p_equivalence, smallest, n, word
    )


def _p_of_none(differences: Float[np.ndarray, " s"]) -> float:
    """Paired t-test, two-sided."""
    n = len(differences)
    if n < 2:
        return 1.0
    error = differences.std(ddof=1) / sqrt(n)
    if error == 0:
        return 1.0 if differences.mean() == 0 else 0.0
    return float(2 * stats.t.sf(abs(differences.mean()) / error, n - 1))


def _p_of_margin(mean: float, error: float, n: int, margin: float) -> float:
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    above = stats.t.sf((mean + margin) / error, n - 1)
    below = stats.t.cdf((mean - margin) / error, n - 1)
    return float(max(above, below))


def holm(ps: Sequence[float]) -> list[float]:
    """Probabilities corrected for how many there are, step by step from the smallest."""
    order = np.argsort(ps, kind="stable")
    corrected, least = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = least
    return corrected


def interval(items: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float]:
    """95 % interval of an arm's score: seeds are drawn anew, and within each its questions. items: by seed."""
    rng = np.random.default_rng(seed)
    rows = [np.asarray(each, dtype=np.float64) for each in items]
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        chosen = rng.integers(len(rows), size=len(rows))
        means[draw] = np.mean([rng.choice(rows[i], len(rows[i])).mean() for i in chosen])
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def by_arm(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Records by arm and seed."""
    table: dict[str, dict[int, Mapping[str, Any]]] = {}
    for record in records:
        table.setdefault(record["arm"], {})[record["seed"]] = record
    return table
