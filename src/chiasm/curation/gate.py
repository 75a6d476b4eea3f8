"""The gate of `chiasm evolve`: scores on held-out data, named before the first round, that must not fall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chiasm.errors import ChiasmError, RecipeError, nearest
from chiasm.evaluation.statistics import paired_interval, unpaired_interval
from chiasm.storage.folders import read_object

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
        measured, samples = read_object(run / "eval.json"), _samples(run)
        scores = [place for place in _places(measured["tasks"]) if place.count(".") == 1]
        scores.sort(key=lambda place: place != "questions.score")
        gate = cls(tuple(places or scores), {key: measured[key] for key in FROZEN})
        if not gate.places:
            raise ChiasmError(f"nothing that {run} is evaluated by is a score with an interval; name a gate")
        for place in gate.places:
            _score(measured, place)
            if len({cluster for cluster, _ in _items(samples, place)}) == 1:
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
        asked, asked_after = _samples(before), _samples(after)
        changes = []
        for place in self.places:
            old, new = _score(one, place), _score(other, place)
            items, items_after = _items(asked, place), _items(asked_after, place)
            clusters = [cluster for cluster, _ in items]
            if items and clusters == [cluster for cluster, _ in items_after]:
                pairs = zip(items, items_after, strict=True)
                ends = paired_interval([later - earlier for (_, earlier), (_, later) in pairs], clusters)
            else:
                ends = unpaired_interval(old, new)
            changes.append(ScoreChange(place, old[0], new[0], *ends))
        return changes

    def _measured(self, run: Path) -> Mapping[str, Any]:
        measured: Mapping[str, Any] = read_object(run / "eval.json")
        for key in FROZEN:
            if measured.get(key) != self.frozen[key]:
                raise ChiasmError(
                    f"{run} was evaluated with other {key} than the gate's, which was frozen before the first round"
                )
        return measured


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
    low, high = table["ci"]
    return float(table["score"]), float(low), float(high)


def _places(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Dotted places of all scores with an interval, those of whole tasks before those of their parts."""
    below = [(f"{above}{key}.", each) for key, each in table.items() if isinstance(each, Mapping)]
    yield from (f"{path}score" for path, each in below if {"score", "ci"} <= each.keys())
    for path, each in below:
        yield from _places(each, path)


def _samples(run: Path) -> Mapping[str, Any]:
    samples: Mapping[str, Any] = read_object(run / "samples.json")
    return samples


def _items(samples: Mapping[str, Any], place: str) -> list[tuple[int, float]]:
    """Cluster and score of each question of a task, in the order in which they were asked; none of part of it."""
    task, _, rest = place.partition(".")
    asked = samples.get(task, {}).get("asked", ()) if rest == "score" else ()
    return [(each["cluster"], float(each["score"])) for each in asked]
