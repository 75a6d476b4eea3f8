"""The gate of `chiasm evolve`: scores on held-out data, named before the first round, that must not fall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from chiasm.errors import ChiasmError, RecipeError, nearest
from chiasm.evaluation.statistics import student_quantile
from chiasm.storage.folders import read_json

FROZEN = ("settings", "fingerprint")  # of eval.json: what was asked, and of which data


@dataclass(frozen=True)
class ScoreChange:
    """Of a score from one run to another, with its 95 % interval."""

    place: str
    before: float
    after: float
    low: float
    high: float

    @property
    def worse(self) -> bool:
        return self.high < 0

    def __str__(self) -> str:
        sign = f"{100 * (self.after - self.before):+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{self.place} {self.after:.1%} ({sign})"


@dataclass(frozen=True)
class Gate:
    """places: dotted places of scores in the tasks of eval.json; the first says which run is the best.

    frozen: how they are measured.
    """

    places: tuple[str, ...]
    frozen: Mapping[str, Any]

    @classmethod
    def of(cls, run: Path, places: Sequence[str] = ()) -> Gate:
        """As a run was evaluated. places: by default the score of every task, questions first.

        Raises ChiasmError for a place without a score, or with so few questions that nothing can be told.
        """
        measured = read_json(run / "eval.json")
        scores = [place for place in _places(measured["tasks"]) if place.count(".") == 1]
        scores.sort(key=lambda place: place != "questions.score")
        gate = cls(tuple(places or scores), {key: measured[key] for key in FROZEN})
        if not gate.places:
            raise ChiasmError(f"nothing that {run} is evaluated by is a score with an interval; name a gate")
        for place in gate.places:
            _score(measured, place)
            if len({cluster for cluster, _ in _items(run, place)}) == 1:
                raise RecipeError(
                    f"the gate {place!r} has questions about one scene alone, from which no interval follows: it "
                    "would never close; hold out more"
                )
        return gate

    def score(self, run: Path) -> float:
        return _score(self._measured(run), self.places[0])[0]

    def changes(self, before: Path, after: Path) -> list[ScoreChange]:
        """Of each score; raises ChiasmError where a run was evaluated otherwise."""
        one, other = self._measured(before), self._measured(after)
        return [self._change(place, before, after, one, other) for place in self.places]

    def _change(
        self, place: str, before: Path, after: Path, one: Mapping[str, Any], other: Mapping[str, Any]
    ) -> ScoreChange:
        (old, old_low, old_high), (new, new_low, new_high) = _score(one, place), _score(other, place)
        items = [_items(run, place) for run in (before, after)]
        if items[0] and [cluster for cluster, _ in items[0]] == [cluster for cluster, _ in items[1]]:
            pairs = zip(*items, strict=True)
            low, high = paired([(cluster, b - a) for (cluster, a), (_, b) in pairs])
        else:  # Newcombe's interval of a difference (1998), as of other questions
            low = new - old - hypot(new - new_low, old_high - old)
            high = new - old + hypot(new_high - new, old - old_low)
        return ScoreChange(place, old, new, low, high)

    def _measured(self, run: Path) -> Mapping[str, Any]:
        measured: Mapping[str, Any] = read_json(run / "eval.json")
        for key in FROZEN:
            if measured.get(key) != self.frozen[key]:
                raise ChiasmError(
                    f"{run} was evaluated with other {key} than the gate's, which was frozen before the first round"
                )
        return measured


def paired(differences: Sequence[tuple[Any, float]]) -> tuple[float, float]:
    """95 % interval of the mean of differences, each with its cluster; Student's over clusters."""
    clusters = {cluster: i for i, cluster in enumerate(dict.fromkeys(each for each, _ in differences))}
    index = [clusters[cluster] for cluster, _ in differences]
    values = np.array([value for _, value in differences])
    mean, n = float(values.mean()), len(clusters)
    if n < 2:
        return -inf, inf
    residuals = np.bincount(index, weights=values - mean)
    error = sqrt(n / (n - 1) * float(np.square(residuals).sum())) / len(values)
    reach = student_quantile(n - 1) * error
    return mean - reach, mean + reach


def _score(measured: Mapping[str, Any], place: str) -> tuple[float, float, float]:
    """A score and its interval."""
    *path, _ = place.split(".")
    table: Any = measured["tasks"]
    for key in path:
        if not isinstance(table, Mapping) or key not in table:
            hint = nearest(key, table) if isinstance(table, Mapping) else ""
            raise RecipeError(f"the gate {place!r} is not in the evaluation: no {key!r}{hint}")
        table = table[key]
    if place not in (places := list(_places(measured["tasks"]))):
        raise RecipeError(f"the gate {place!r} is no score with an interval; such are {', '.join(places)}")
    interval = table["ci"]
    return float(table["score"]), *map(float, interval)  # type: ignore[return-value]


def _places(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Dotted places of all scores with an interval, those of whole tasks before those of their parts."""
    below = [(f"{above}{key}.", each) for key, each in table.items() if isinstance(each, Mapping)]
    yield from (f"{path}score" for path, each in below if {"score", "ci"} <= each.keys())
    for path, each in below:
        yield from _places(each, path)


def _items(run: Path, place: str) -> list[tuple[int, float]]:
    """Cluster and score of each question of a task, in the order in which they were asked; none of part of it."""
    task, _, rest = place.partition(".")
    asked = read_json(run / "samples.json").get(task, {}).get("asked", ()) if rest == "score" else ()
    return [(each["cluster"], float(each["score"])) for each in asked]
