"""Scores over amounts of data: lines, what an arm is worth in data, where two cross, and a law of the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from chiasm.studies.compare import DRAWS, LEVEL

LEAST_SIZES = 5  # from which on an exponent may be reported
Scores = Float[np.ndarray, "seeds sizes"]


@dataclass(frozen=True)
class DataCurve:
    """An arm's mean score at each size, and the line through them on log2 of the size with its 95 % band.

    slope: of the line, in score a doubling of the data.
    """

    sizes: Sequence[int]
    scores: Scores
    mean: Float[np.ndarray, " sizes"]
    line: Float[np.ndarray, " sizes"]
    low: Float[np.ndarray, " sizes"]
    high: Float[np.ndarray, " sizes"]
    slope: float


@dataclass(frozen=True)
class Exchange:
    """How many times the data the baseline needs to do as well as an arm, with its 95 % interval.

    An end that the data does not bound is 0 or infinite. measured: whether the rate lies within what was measured;
    beyond, it is a guess from a line.
    """

    rate: float
    low: float
    high: float
    measured: bool


@dataclass(frozen=True)
class Crossing:
    """The size of data at which an arm and the baseline do equally well, with its 95 % interval.

    ahead: whether it is the arm that does better behind it.
    """

    size: float
    low: float
    high: float
    ahead: bool


@dataclass(frozen=True)
class Exponent:
    """error = a size^-b: b with its 95 % interval, and the correlation of the fit in log space."""

    value: float
    low: float
    high: float
    r: float


def data_curve(sizes: Sequence[int], scores: Scores, seed: int = 0) -> DataCurve:
    """scores: of each seed at each size. The band is that of the line when seeds are drawn anew."""
    rng = np.random.default_rng(seed)
    x = np.log2(np.asarray(sizes, dtype=np.float64))
    resampled = scores[rng.integers(len(scores), size=(DRAWS, len(scores)))].mean(axis=1)
    lines = _lines(x, resampled)
    low, high = np.quantile(lines, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    mean = scores.mean(axis=0)
    return DataCurve(
        sizes, scores, mean, _lines(x, mean[None])[0], low, high, float(_slopes(x, mean[None])[0])
    )


def exchange(sizes: Sequence[int], arm: Scores, base: Scores) -> Exchange | None:
    """What an arm is worth in data; None where there are fewer than two sizes or seeds, or more data does not help.

    The arm's gain, in score, over the baseline's slope, in score a doubling, is a ratio of two means over the same
    seeds, whose interval is exact for few of them (Fieller 1954).
    """
    if len(sizes) < 2 or len(arm) < 2:
        return None
    x = np.log2(np.asarray(sizes, dtype=np.float64))
    gains, slopes = (arm - base).mean(axis=1), _slopes(x, base)
    slope = float(slopes.mean())
    if slope <= 0:
        return None
    doublings = float(gains.mean()) / slope
    low, high = fieller(gains, slopes)
    return Exchange(_power(doublings), _power(low), _power(high), bool(abs(doublings) <= x[-1] - x[0]))


def fieller(above: Float[np.ndarray, " n"], below: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """95 % interval of the ratio of two means of paired values; infinite where the lower one may be 0."""
    n = len(above)
    t2 = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) ** 2 / n
    covariance = np.cov(above, below)
    a = below.mean() ** 2 - t2 * covariance[1, 1]
    b = above.mean() * below.mean() - t2 * covariance[0, 1]
    c = above.mean() ** 2 - t2 * covariance[0, 0]
    root = b * b - a * c
    if a <= 0 or root < 0:
        return -inf, inf
    return float((b - sqrt(root)) / a), float((b + sqrt(root)) / a)


def crossing(sizes: Sequence[int], arm: Scores, base: Scores) -> Crossing | None:
    """Where the lines of an arm and the baseline cross within the sizes; None where none is shown to.

    The difference of the two has a slope and a value at the first size; where it is 0 is a ratio as above.
    """
    if len(sizes) < 2 or len(arm) < 2:
        return None
    x = np.log2(np.asarray(sizes, dtype=np.float64))
    differences = arm - base
    slopes = _slopes(x, differences)
    begins = differences.mean(axis=1) - slopes * (x.mean() - x[0])
    if slopes.mean() == 0:
        return None
    place = -begins.mean() / slopes.mean()
    low, high = fieller(-begins, slopes)
    if not (0 <= place <= x[-1] - x[0]) or low == -inf:
        return None
    size, lower, upper = (sizes[0] * _power(each) for each in (place, low, high))
    return Crossing(size, lower, upper, bool(slopes.mean() > 0))


def exponent(sizes: Sequence[int], scores: Scores) -> Exponent | None:
    """The law of the error, 1 - score; None from fewer than five sizes, two seeds, or where there is no error."""
    errors = 1 - scores
    if len(sizes) < LEAST_SIZES or len(scores) < 2 or (errors <= 0).any():
        return None
    x, y = np.log2(np.asarray(sizes, dtype=np.float64)), np.log2(errors)
    slopes = -_slopes(x, y)
    reach = float(stats.t.ppf(1 - LEVEL / 2, len(slopes) - 1)) * slopes.std(ddof=1) / sqrt(len(slopes))
    r = float(np.corrcoef(x, y.mean(axis=0))[0, 1])
    return Exponent(float(slopes.mean()), float(slopes.mean() - reach), float(slopes.mean() + reach), r)


def by_size(records: Sequence[Mapping[str, Any]], arm: str, sizes: Sequence[int]) -> dict[int, list[float]]:
    """The scores of an arm at each size, by seed, of seeds that have all sizes."""
    cells = {(r["seed"], r["size"]): r["score"] for r in records if r["arm"] == arm}
    seeds = sorted({seed for seed, _ in cells})
    return {
        seed: [cells[seed, size] for size in sizes]
        for seed in seeds
        if all((seed, size) in cells for size in sizes)
    }


def _slopes(x: Float[np.ndarray, " k"], y: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    centred = x - x.mean()
    return y @ centred / (centred @ centred)


def _lines(x: Float[np.ndarray, " k"], y: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    if len(x) < 2:
        return y
    return y.mean(axis=1, keepdims=True) + _slopes(x, y)[:, None] * (x - x.mean())


def _power(doublings: float) -> float:
    if doublings == -inf:
        return 0.0
    return inf if doublings > 1000 else 2.0**doublings
