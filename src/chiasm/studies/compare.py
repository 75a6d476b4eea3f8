"""Arms beside a baseline: differences by seed, what can be said of them, and what could have been seen.

The unit is the seed. Arms with one seed answer the same questions after training on data in the same order, so that
their scores are compared pair by pair; the spread of those differences holds that of seeds and of questions alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, sqrt
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

Word = Literal["different", "equivalent", "not resolved"]
LEVEL = 0.05
POWER = 0.8
DRAWS = 4000  # of the bootstrap
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Comparison:
    """An arm beside its reference, mostly the baseline.

    difference, low, high: mean over seeds and its 95 % interval (Student's, paired by seed).
    p: of no difference, corrected for all arms of the study (Holm, 1979). p_equivalence: of a difference of the
    margin or more (two one-sided tests, Schuirmann 1987).
    smallest: the least difference that would be seen with 80 % power. needed: seeds with which a difference of the
    margin would be seen, and equal arms be called equivalent, with that power; None = this spread is not known.
    """

    arm: str
    reference: str
    difference: float
    low: float
    high: float
    p: float
    p_equivalence: float
    smallest: float
    seeds: int
    word: Word
    needed: int | None


def verdict(p: float, p_equivalence: float) -> Word:
    """The one place where a word is chosen; `equivalent` has a test of its own, and is not a lack of evidence."""
    if p_equivalence < LEVEL:
        return "equivalent"
    return "different" if p < LEVEL else "not resolved"


def compare(
    scores: Mapping[str, Mapping[int, float]],
    baseline: str,
    margin: float,
    references: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Every arm beside the baseline, or beside another arm. scores: by arm and seed."""
    references = {arm: (references or {}).get(arm, baseline) for arm in scores if arm != baseline}
    paired = {
        arm: np.array([scores[arm][s] - scores[base][s] for s in sorted(scores[arm]) if s in scores[base]])
        for arm, base in references.items()
        if base in scores
    }
    ps = holm([_p_of_none(differences) for differences in paired.values()])
    return [
        _comparison(arm, references[arm], differences, p, margin, len(paired))
        for (arm, differences), p in zip(paired.items(), ps, strict=True)
    ]


def _comparison(
    arm: str, base: str, differences: Float[np.ndarray, " s"], p: float, margin: float, arms: int
) -> Comparison:
    """arms: how many are compared, for which the least difference that is seen is corrected too."""
    n = len(differences)
    mean = float(differences.mean()) if n else 0.0
    if n < 2:
        return Comparison(arm, base, mean, -inf, inf, 1.0, 1.0, inf, n, "not resolved", None)
    spread = float(differences.std(ddof=1))
    error = spread / sqrt(n)
    reach = float(stats.t.ppf(1 - LEVEL / 2, n - 1))
    p_equivalence = _p_of_margin(mean, error, n, margin)
    return Comparison(
        arm,
        base,
        mean,
        mean - reach * error,
        mean + reach * error,
        p,
        p_equivalence,
        smallest(spread, n, arms),
        n,
        verdict(p, p_equivalence),
        seeds_needed(spread, margin, arms),
    )


def smallest(spread: float, seeds: int, arms: int = 1) -> float:
    """The least difference that is seen with 80 % power, if so many arms are compared (Bonferroni's bound of Holm).

    spread: standard deviation of the differences over seeds.
    """
    reach = float(stats.t.ppf(1 - LEVEL / arms / 2, seeds - 1) + stats.t.ppf(POWER, seeds - 1))
    return reach * spread / sqrt(seeds)


def seeds_needed(spread: float, margin: float, arms: int = 1) -> int | None:
    """Seeds with which a difference of the margin is seen, and equal arms are equivalent, each with 80 % power.

    None where that takes more than anybody will run.
    """
    factors = _factors(arms)
    enough = np.flatnonzero(factors * spread <= margin)
    return int(enough[0]) + 2 if len(enough) else None


@cache
def _factors(arms: int) -> Float[np.ndarray, " n"]:
    """What a spread over 2, 3, 4, ... seeds is multiplied with for the least margin that they resolve."""
    seeds = np.unique(np.geomspace(2, MOST_SEEDS, 400).round())
    different = stats.t.ppf(1 - LEVEL / arms / 2, seeds - 1) + stats.t.ppf(POWER, seeds - 1)
    equivalent = stats.t.ppf(1 - LEVEL, seeds - 1) + stats.t.ppf((1 + POWER) / 2, seeds - 1)
    factors = np.maximum(different, equivalent) / np.sqrt(seeds)
    return np.interp(np.arange(2, MOST_SEEDS), seeds, factors)


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
    """95 % interval of an arm's score: seeds are drawn anew, and within each its questions. items: by seed.

    Drawing questions anew is drawing how often each value occurs among them, which takes no list of questions.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(items), size=(DRAWS, len(items)))
    means = np.empty(chosen.shape)
    for index, scores in enumerate(items):
        values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
        here = chosen == index
        repeats = rng.multinomial(counts.sum(), counts / counts.sum(), size=int(here.sum()))
        means[here] = repeats @ values / counts.sum()
    low, high = np.quantile(means.mean(axis=1), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def by_arm(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Records by arm."""
    table: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        table.setdefault(record["arm"], []).append(record)
    return table


def over_sizes(
    records: Sequence[Mapping[str, Any]], sizes: Sequence[int | None], endpoint: str | None = None
) -> dict[str, dict[int, float]]:
    """Scores by arm and seed: the mean over all sizes of data, of seeds that have them all.

    endpoint: a secondary one, by its name; None = the primary.
    """
    cells: dict[str, dict[int, dict[int | None, float]]] = {}
    for record in records:
        score = record["score"] if endpoint is None else record["secondary"][endpoint]["score"]
        cells.setdefault(record["arm"], {}).setdefault(record["seed"], {})[record["size"]] = score
    return {
        arm: {
            seed: float(np.mean(list(by_size.values())))
            for seed, by_size in seeds.items()
            if set(by_size) >= set(sizes)
        }
        for arm, seeds in cells.items()
    }
