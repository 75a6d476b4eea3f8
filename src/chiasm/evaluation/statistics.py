"""How sure a score is: intervals, the smallest difference that could be seen, and the commonest answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from jaxtyping import Float

Z = 1.959964  # of a two-sided interval of 95 %
POWER = 0.841621  # of 80 % power
DRAWS = 2000


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


def wilson(right: float, n: float) -> tuple[float, float]:
    """95 % interval of a proportion of independent trials (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share = right / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered(values: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> Estimate:
    """Mean of values between 0 and 1, with the percentile interval of a bootstrap over whole clusters.

    Questions about one picture are right or wrong together; drawing whole pictures keeps that in the interval.
    Where all clusters agree the bootstrap sees no spread, and Wilson's interval over the clusters stands instead.
    """
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters")
    if not values:
        return Estimate(0.0, 0.0, 1.0, 0)
    sums, counts = _by_cluster(values, clusters)
    mean = float(sums.sum() / counts.sum())
    k = len(sums)
    if np.ptp(sums / counts) < 1e-12:
        return Estimate(mean, *wilson(mean * k, k), len(values))
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=DRAWS)
    low, high = np.percentile((drawn @ sums) / (drawn @ counts), (2.5, 97.5))
    return Estimate(mean, float(low), float(high), len(values))


def commonest(answers: Sequence[Hashable]) -> float:
    """Share of the questions that always giving the commonest answer gets right."""
    return max(Counter(answers).values()) / len(answers) if answers else 0.0


def _by_cluster(
    values: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[Float[np.ndarray, k], Float[np.ndarray, k]]:
    """Sum and number of the values of each cluster."""
    places = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    index = np.array([places[cluster] for cluster in clusters])
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    return sums, np.bincount(index).astype(np.float64)
