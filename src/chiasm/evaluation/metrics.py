"""Metrics by name: how right an answer is, between 0 and 1, given one or several true answers.

A metric is a function of an answer and the true answers. One of one's own is registered by a decorator, in a module
or file that is named with `--plugin` (or imported before `chiasm.evaluate` is called); the recipe then names it:

    from chiasm.evaluation.metrics import metric

    @metric("first word")
    def first_word(answer, truths):
        return float(answer.split()[:1] == truths[0].split()[:1])
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence

from chiasm.errors import ChiasmError
from chiasm.parts.registry import Registry

Metric = Callable[[str, Sequence[str]], float]

STOPS = (".", "。", "．")
ARTICLES = ("a", "an", "the")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TOLERANCE = 0.05  # of `relaxed`, relative (ChartQA, arXiv 2203.10244)
ALIKE = 0.5  # least similarity that `anls` counts (arXiv 1905.13648)
VOTES = 3  # people who must have given an answer for it to be wholly right (arXiv 1505.00468)

_registry: Registry[Metric] = Registry("metric", __name__)


def metric(name: str) -> Callable[[Metric], Metric]:
    """Register a metric under a name; raises RecipeError if another function has it."""

    def register(function: Metric) -> Metric:
        _registry.add(name, function)
        return function

    return register


def lookup(name: str) -> Metric:
    """The metric of a name; raises RecipeError with the nearest one.

    It raises ChiasmError for an answer for which it fails or gives no number from 0 to 1.
    """
    function = _registry.lookup(name)

    def checked(answer: str, truths: Sequence[str]) -> float:
        try:
            value = float(function(answer, truths))
        except Exception as error:  # whatever the user's code raises
            raise ChiasmError(f"the metric {name!r} fails for the answer {answer!r}: {error!r}") from error
        if not 0 <= value <= 1:
            raise ChiasmError(f"the metric {name!r} gives {value} for {answer!r}; it must be from 0 to 1")
        return value

    return checked


def names() -> list[str]:
    """The names of all metrics."""
    return list(_registry.items())


def normalise(text: str) -> str:
    """Text without differences of case and spaces, and without one final full stop, in any script.

    Nothing else is removed: `C#` is not `C`, `50%` is not `50`, and `!` is not `?`.
    """
    text = " ".join(unicodedata.normalize("NFC", text).lower().split())
    if len(text) > 1 and text[-1] in STOPS and text[-2] not in STOPS:
        text = text[:-1].rstrip()
    return text


@metric("exact")
def exact(answer: str, truths: Sequence[str]) -> float:
    """1 if the answer is a true one, but for case, spaces and a final full stop; an empty answer is wrong."""
    normalised = normalise(answer)
    return float(bool(normalised) and any(normalised == normalise(truth) for truth in truths))


@metric("contains")
def contains(answer: str, truths: Sequence[str]) -> float:
    """1 if a true answer occurs in the answer as whole words; `3` is in `There are 3.` but not in `3.5`."""
    normalised = normalise(answer)
    return float(any(_stands_in(normalise(truth), normalised) for truth in truths))


@metric("relaxed")
def relaxed(answer: str, truths: Sequence[str]) -> float:
    """ChartQA's relaxed accuracy: numbers may be 5 % off, a per cent sign divides by 100; else as `exact`."""
    value = _number(answer)
    for truth in truths:
        true = _number(truth)
        if value is not None and true is not None and abs(value - true) <= TOLERANCE * abs(true):
            return 1.0
    return exact(answer, truths)


@metric("anls")
def anls(answer: str, truths: Sequence[str]) -> float:
    """DocVQA's similarity: 1 less the edit distance over the longer length, 0 below a half; the best truth's."""
    normalised = normalise(answer)
    scores = [0.0]
    for truth in map(normalise, truths):
        longer = max(len(normalised), len(truth))
        scores.append(1 - _edits(normalised, truth) / longer if normalised and longer else 0.0)
    best = max(scores)
    return best if best >= ALIKE else 0.0


@metric("vqa")
def vqa(answer: str, truths: Sequence[str]) -> float:
    """VQA accuracy: a third for each person who gave this answer, at most 1, averaged over leaving one person out.

    Articles are left out and number words are digits. With fewer than four true answers all others must agree; with
    one, it is `exact` of these.
    """
    words = _vqa_words(answer)
    people = [_vqa_words(truth) for truth in truths]
    if not words:
        return 0.0
    if len(people) == 1:
        return float(words == people[0])
    needed = min(VOTES, len(people) - 1)
    votes = people.count(words)
    without_each = [min(1.0, (votes - (person == words)) / needed) for person in people]
    return sum(without_each) / len(without_each)


@metric("choice")
def choice(answer: str, truths: Sequence[str]) -> float:
    """1 if the answer names the letter of the true choice: `B`, `(b)`, `B. a cat`, `The answer is B.`"""
    letter = _letter(answer)
    return float(letter is not None and any(letter == _letter(truth) for truth in truths))


def _stands_in(truth: str, answer: str) -> bool:
    """Between spaces, brackets, quotes or closing signs; next to a script without spaces anywhere."""
    if not truth:
        return False
    start = r"(?:^|[\s(\[\"'“‘])" if _spaced(truth[0]) else ""
    end = r"(?=[.,;:!?)\]\"'”’]*(?:\s|$))" if _spaced(truth[-1]) else ""
    return re.search(start + re.escape(truth) + end, answer) is not None


def _spaced(character: str) -> bool:
    """Whether words of its script stand apart: all but Chinese, Japanese and their neighbours."""
    return ord(character) < 0x2E80


def _number(text: str) -> float | None:
    text = normalise(text).replace(",", "")
    share = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / (100 if share else 1)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _edits(one: str, other: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        previous, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (a != b)))
    return row[-1]


def _vqa_words(text: str) -> str:
    words = [word for word in normalise(text).split() if word not in ARTICLES]
    return " ".join(str(NUMBERS.index(word)) if word in NUMBERS else word for word in words)


def _letter(text: str) -> str | None:
    text = text.strip()
    for pattern in (
        r"\(?([A-Za-z])\)?[.:)]?",  # the letter alone
        r"\(?([A-Z])[.:)](?:\s.*)?",  # before the choice itself
        r"(?i:.*\b(?:answer|option|choice)(?:\s+is)?\s*:?)\s*\(?([A-Z])\)?[.:)]?(?:\s.*)?",
    ):
        match = re.fullmatch(pattern, text, re.DOTALL)
        if match:
            return match.group(1).upper()
    return None
