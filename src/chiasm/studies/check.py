"""`chiasm study check`: whether studies find what is there, and nothing else, where the truth is known.

Scores are simulated; controls are those of the task `questions`, asked of subjects that are made to see, not to
see, and to read answers that the questions give away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

from chiasm.data.sample import Message, Sample
from chiasm.data.world import World
from chiasm.evaluation.subject import Subject, expected, pictures_read, question
from chiasm.evaluation.tasks import Exam
from chiasm.evaluation.tasks.questions import Questions
from chiasm.recipe import Evaluation
from chiasm.studies.compare import LEVEL, POWER, compare, interval, smallest
from chiasm.studies.curves import exchange
from chiasm.studies.report import warnings_of

STUDIES = 400
SEEDS, SPREAD, MARGIN = 6, 0.04, 0.05  # of simulated studies; the spread is that of differences over seeds
QUESTIONS = 120


@dataclass(frozen=True)
class Finding:
    """One check. sentence: what was counted, and what may be."""

    name: str
    passed: bool
    sentence: str


def check() -> Iterator[Finding]:
    """All checks, each as soon as it is done. They draw the same numbers every time."""
    rng = np.random.default_rng(0)
    yield _at_most(
        "equal arms", "called different", LEVEL, _share(lambda: simulated(rng, [0, 0, 0]), "different")
    )
    yield _at_most(
        "arms a margin apart",
        "called equivalent",
        LEVEL,
        _share(lambda: simulated(rng, [MARGIN]), "equivalent"),
    )
    effect = smallest(SPREAD, SEEDS)
    yield _at_least(
        f"a planted effect of {100 * effect:.1f} points",
        "found",
        POWER - 0.03,  # the promise is exact for many seeds
        _share(lambda: simulated(rng, [effect]), "different"),
    )
    yield _at_least("an arm worth twice the data", "held by its interval", 1 - LEVEL, _rates(rng))
    yield from _controls()


def simulated(rng: np.random.Generator, effects: Sequence[float]) -> dict[str, dict[int, float]]:
    """Scores of a baseline and of arms that are better than it by these effects, by seed."""
    base = 0.6 + SPREAD * rng.standard_normal(SEEDS)
    table = {"base": dict(enumerate(base))}
    for number, effect in enumerate(effects):
        table[f"arm {number}"] = dict(enumerate(base + effect + SPREAD * rng.standard_normal(SEEDS)))
    return table


def _share(study: Callable[[], dict[str, dict[int, float]]], word: str) -> int:
    """In how many of the simulated studies any arm is called so."""
    return sum(
        any(each.word == word for each in compare(study(), "base", MARGIN if word == "equivalent" else 1e-6))
        for _ in range(STUDIES)
    )


def _rates(rng: np.random.Generator) -> int:
    """In how many simulated studies the interval of the exchange rate holds the planted one, 2."""
    sizes, slope = (1000, 2000, 4000, 8000), 0.06
    held = 0
    for _ in range(STUDIES):
        line = 0.4 + slope * np.arange(len(sizes))
        base, arm = (
            line + effect + SPREAD * rng.standard_normal((SEEDS, len(sizes))) for effect in (0, slope)
        )
        rate = exchange(sizes, arm, base)
        held += rate is not None and rate.low <= 2 <= rate.high
    return held


def _at_most(name: str, what: str, share: float, count: int) -> Finding:
    most = int(stats.binom.ppf(0.99, STUDIES, share))
    return Finding(name, count <= most, f"{_counted(what, count, share)}, and chance allows {most}")


def _at_least(name: str, what: str, share: float, count: int) -> Finding:
    least = int(stats.binom.ppf(0.01, STUDIES, share))
    return Finding(name, count >= least, f"{_counted(what, count, share)}, and chance allows {least}")


def _counted(what: str, count: int, share: float) -> str:
    return f"{what} in {count} of {STUDIES} studies; {share:.0%} are {share * STUDIES:.0f}"


def _controls() -> Iterator[Finding]:
    sound = examined(Seer(), world())
    yield Finding("an arm that sees", not sound, _remarks(sound))
    broken = examined(Seer(connected=False), world())
    yield Finding("a broken connector", any("does not see" in each for each in broken), _remarks(broken))
    leak = examined(Eavesdropper(), Leaking(world()))
    yield Finding("questions that leak", any("give answers away" in each for each in leak), _remarks(leak))


def world() -> World:
    return World(emoji=8, objects=(2, 3), scenes=QUESTIONS, tasks={"exist": 1}, phrasings="plain")


def examined(subject: Subject, source: Any) -> list[str]:
    """What a report says against an arm that answers like the subject."""
    outcome = Questions().run(Exam(subject, source, Evaluation(questions=QUESTIONS)))
    items = [each["score"] for each in outcome.samples["asked"]]
    controls = {name: outcome.scores[name] for name in ("blind", "shuffled", "commonest")}
    return warnings_of(interval([items, items, items])[0], controls)


def _remarks(warnings: Sequence[str]) -> str:
    return "the report remarks: " + ("; ".join(warnings) if warnings else "nothing")


class Seer(Subject):
    """Answers every question about an image that it sees, and `yes` where it cannot.

    connected: whether what it sees reaches it.
    """

    sees, draws = True, False

    def __init__(self, connected: bool = True):
        self.connected = connected
        self.truths: dict[tuple[str, str], str] = {}

    def answer(self, samples: Sequence[Sample], *, blind: bool = False) -> list[str]:
        if not self.truths:  # the first time it is asked, each question stands with its own image
            self.truths = {self._key(sample): expected(sample) for sample in samples}
        sees = self.connected and not blind
        return [self.truths.get(self._key(sample), "yes") if sees else "yes" for sample in samples]

    def _key(self, sample: Sample) -> tuple[str, str]:
        return pictures_read(sample)[0].key, question(sample)

    def draw(self, samples: Sequence[Sample], *, seed: int) -> list[Image.Image]:
        raise NotImplementedError

    def reconstruct(self, images: Sequence[Any]) -> list[Image.Image]:
        raise NotImplementedError


class Eavesdropper(Seer):
    """Answers the last word of the question, image or none."""

    def answer(self, samples: Sequence[Sample], *, blind: bool = False) -> list[str]:
        return [question(sample).split()[-1] for sample in samples]


class Leaking:
    """A source whose questions end in their answers."""

    name, broken = "leaking", "error"

    def __init__(self, source: World):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> list[Sample]:
        return [_with_answer(sample) for sample in self.source[index]]


def _with_answer(sample: Sample) -> Sample:
    user, answer = sample.messages
    return replace(sample, messages=(Message("user", (*user.content, f" {expected(sample)}")), answer))
