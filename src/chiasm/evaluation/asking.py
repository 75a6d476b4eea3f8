"""Questions and answers as the tasks keep them: normalising, scoring, telling by type."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from chiasm.evaluation.statistics import Estimate, clustered, commonest
from chiasm.evaluation.subject import expected, question
from chiasm.evaluation.tasks import Item


@dataclass
class Asked:
    """One question with what was said to it under each condition ("said", "blind", "shuffled")."""

    type: str
    cluster: int
    question: str
    answer: str
    kind: (
        str  # of the answer, where the words differ from question to question (first or second of two names)
    )
    said: dict[str, str] = field(default_factory=dict)
    picture: str | None = None

    @property
    def right(self) -> bool:
        return self.is_right("said")

    def is_right(self, condition: str) -> bool:
        return normalise(self.said[condition]) == normalise(self.answer)

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "right": self.right}


def ask(items: Sequence[Item]) -> list[Asked]:
    """The questions of samples, before they are answered."""
    asked = []
    for item in items:
        truth, answer = item.sample.truth, expected(item.sample)
        kind = str(truth.get("answer_class", normalise(answer)))
        type_ = str(truth.get("type", truth.get("task", "all")))
        asked.append(Asked(type_, item.cluster, question(item.sample), answer, kind))
    return asked


def normalise(text: str) -> str:
    """What is compared: without differences of case, width, spaces and closing punctuation, in any script."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    while text and (unicodedata.category(text[-1]).startswith("P") or text[-1] == " "):
        text = text[:-1]
    return text


def by_type(asked: Iterable[Asked]) -> dict[str, list[Asked]]:
    groups: dict[str, list[Asked]] = {}
    for each in asked:
        groups.setdefault(each.type, []).append(each)
    return groups


def estimate(asked: Sequence[Asked], condition: str = "said") -> Estimate:
    """Share of right answers, its interval over pictures."""
    return clustered([float(each.is_right(condition)) for each in asked], [each.cluster for each in asked])


def scores(asked: Sequence[Asked], controls: Sequence[str]) -> dict[str, Any]:
    """Score, interval and controls of questions of one type."""
    overall = estimate(asked)
    told: dict[str, Any] = {"score": overall.value, "ci": overall.interval}
    for control in controls:
        under = estimate(asked, control)
        told |= {control: under.value, f"{control}_ci": under.interval}
    share = commonest([each.kind for each in asked])
    return {**told, "commonest": share, "n": overall.n, "smallest_effect": overall.smallest_effect}


def told(asked: Sequence[Asked], controls: Sequence[str]) -> dict[str, Any]:
    """Scores over all questions and by type. The commonest answer is the commonest of each question's own type."""
    types = {name: scores(group, controls) for name, group in sorted(by_type(asked).items())}
    whole = scores(asked, controls)
    whole["commonest"] = sum(each["commonest"] * each["n"] for each in types.values()) / len(asked)
    clusters = len({each.cluster for each in asked})
    return {**whole, "clusters": clusters, "by_type": types}
