"""How sure a score is: intervals, the smallest difference that could be seen, and the commonest answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from math import hypot, inf, nan, sqrt

import numpy as np
from jaxtyping import Float

Z = 1.959964  # of a two-sided interval of 95 %
POWER = 0.841621  # of 80 % power
TAIL = 0.025  # probability outside an interval, on either side
DOUBT = 3  # answers with which the largest possible design effect is mixed into the estimated one
POINTS = 1000  # of the quadrature of a Beta distribution


@dataclass(frozen=True)
class Estimate:
    """A mean of n values between 0 and 1 with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> list[float]:
        return [self.low, self.high]

    @property
    def smallest_effect(self) -> float:
        """Roughly the least difference between two such scores that would be seen, at 5 % and 80 % power."""
        error = (self.high - self.low) / (2 * Z)
        return (Z + POWER) * sqrt(2) * error


def clustered(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Mean of values between 0 and 1 with its 95 % interval; values of one cluster may depend on each other.

    Questions about one picture are right or wrong together, so that they count as fewer than they are; see
    `interval`. Values between 0 and 1 (a partial score) have at most the variance of right and wrong answers, which
    is what the interval allows for.
    """
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters")
    if not values:
        return Estimate(0.0, 0.0, 1.0, 0)
    sums, counts = _by_cluster(values, clusters)
    low, high = interval(sums, counts)
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high), len(values))


def mean_radius(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean of numbers of any size (normal theory); NaN of a single number."""
    return Z * float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else nan


def paired_interval(differences: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """95 % interval of the mean of differences, Student's over clusters; of a single cluster nothing follows."""
    sums, counts = _by_cluster(differences, clusters)
    if len(sums) < 2:
        return -inf, inf
    mean = float(sums.sum() / counts.sum())
    reach = student_quantile(len(sums) - 1) * sqrt(_variance(sums, counts))
    return mean - reach, mean + reach


def unpaired_interval(
    before: tuple[float, float, float], after: tuple[float, float, float]
) -> tuple[float, float]:
    """95 % interval of the difference of two scores on other questions each (Newcombe, 1998).

    before, after: the score, and the ends of its interval.
    """
    (old, old_low, old_high), (new, new_low, new_high) = before, after
    low = new - old - hypot(new - new_low, old_high - old)
    high = new - old + hypot(new_high - new, old - old_low)
    return low, high


def interval(
    sums: Float[np.ndarray, "*b k"], counts: Float[np.ndarray, "*b k"]
) -> tuple[Float[np.ndarray, "*b"], Float[np.ndarray, "*b"]]:
    """95 % interval of a share from the sum and the number of values of each cluster.

    Clopper and Pearson's interval (1934) for the effective number of values, as Korn and Graubard (1998) take it
    for surveys: the number divided by the design effect (the variance of the mean over clusters relative to that of
    as many independent values), and by the square of t over z for a variance estimated from few clusters.

    Where nearly all answers are right, or nearly all wrong, the design effect is estimated from the few others, and
    those alone cannot show how often they come together. It is therefore mixed with the largest there can be, that
    of clusters which are right or wrong as a whole, with the weight of `DOUBT` such answers; without any, that one
    stands alone. `benchmarks/coverage.py` measures how often the truth lies within.
    """
    clusters = counts.shape[-1]
    n = counts.sum(-1)
    mean = sums.sum(-1) / n
    largest = n / clusters
    rarer = np.minimum(sums.sum(-1), n - sums.sum(-1))
    effect = largest
    if clusters > 1:
        independent = np.maximum(mean * (1 - mean) / n, 1e-12)
        design = np.maximum(_variance(sums, counts) / independent, 1)
        effect = (rarer * design + DOUBT * largest) / (rarer + DOUBT)
    student = np.where(rarer > 0, student_quantile(max(1, clusters - 1)), Z)
    size = n / effect * (Z / student) ** 2
    right = mean * size
    wrong = size - right
    low = np.where(right > 1e-9, beta_quantile(TAIL, np.maximum(right, 1e-9), wrong + 1), 0.0)
    high = np.where(wrong > 1e-9, beta_quantile(1 - TAIL, right + 1, np.maximum(wrong, 1e-9)), 1.0)
    bound = TAIL ** (1 / clusters)  # the end that all right has: a wrong answer makes nothing surer
    return np.minimum(low, bound), np.maximum(high, 1 - bound)


def beta_quantile(
    share: float, a: Float[np.ndarray, "*b"], b: Float[np.ndarray, "*b"]
) -> Float[np.ndarray, "*b"]:
    """Quantile of Beta(a, b), by quadrature over the logit, where the density is smooth and has one peak."""
    a, b = np.asarray(a, dtype=np.float64)[..., None], np.asarray(b, dtype=np.float64)[..., None]
    spread = 5 * np.sqrt(1 / a + 1 / b)
    left_reach, right_reach = spread + 8 / a, spread + 8 / b  # the tails fall like exp(a u) and exp(-b u)
    logit = np.log(a / b) - left_reach + (left_reach + right_reach) * np.linspace(0, 1, POINTS)
    density = a * logit - (a + b) * np.logaddexp(0, logit)
    density = np.exp(density - density.max(-1, keepdims=True))
    below = np.cumsum(density, -1) - density / 2
    below /= density.sum(-1, keepdims=True)
    after = np.clip((below < share).sum(-1, keepdims=True), 1, POINTS - 1)
    (x0, x1), (y0, y1) = (
        [np.take_along_axis(each, after - i, -1) for i in (1, 0)] for each in (below, logit)
    )
    quantile = y0 + (share - x0) / (x1 - x0) * (y1 - y0)
    return np.exp(-np.logaddexp(0, -quantile[..., 0]))


def commonest(answers: Sequence[Hashable]) -> float:
    """Share of the questions that always giving the commonest answer gets right."""
    return max(Counter(answers).values()) / len(answers) if answers else 0.0


@cache
def student_quantile(freedom: int) -> float:
    """What |t| of `freedom` degrees exceeds in 5 % of cases: freedom / (freedom + t²) is a Beta quantile."""
    share = float(beta_quantile(2 * TAIL, np.array(freedom / 2), np.array(0.5)))
    return sqrt(freedom * (1 - share) / share)


def _by_cluster(
    values: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Sum and number of the values of each cluster."""
    places = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    index = np.array([places[cluster] for cluster in clusters])
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    return sums, np.bincount(index).astype(np.float64)


def _variance(sums: Float[np.ndarray, "*b k"], counts: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b"]:
    """Of the mean of all values, estimated from two clusters or more."""
    clusters, n = counts.shape[-1], counts.sum(-1)
    residuals = sums - (sums.sum(-1) / n)[..., None] * counts
    return clusters / (clusters - 1) * np.square(residuals).sum(-1) / n**2
