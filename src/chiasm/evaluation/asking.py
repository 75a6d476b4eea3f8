"""Records of questions and answers, and their scores by type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chiasm.evaluation.conversations import Item
from chiasm.evaluation.metrics import Metric, exact, normalise
from chiasm.evaluation.statistics import Estimate, clustered, commonest
from chiasm.evaluation.subject import expected, question
from chiasm.inference.answers import is_cut

__all__ = ["QuestionRecord", "ask", "estimate", "normalise", "scores_by_type"]


@dataclass
class QuestionRecord:
    """One question with its `answers` under each condition ("said", "blind", "shuffled").

    answer: the first of the true answers, `truths`. kind: of the answer, where the words differ from question to
    question (first or second of two names).
    """

    type: str
    cluster: int
    question: str
    answer: str
    kind: str
    truths: tuple[str, ...] = ()
    metric: Metric = exact
    answers: dict[str, str] = field(default_factory=dict)
    picture: str | None = None

    @property
    def right(self) -> bool:
        return self.score("said") == 1

    def score(self, condition: str) -> float:
        return float(self.metric(self.answers[condition], self.truths or (self.answer,)))

    def cut(self, condition: str = "said") -> bool:
        """Whether the limit of tokens came before the answer's end."""
        return is_cut(self.answers[condition])

    def record(self) -> dict[str, Any]:
        """The entry of samples.json."""
        plain = {key: getattr(self, key) for key in ("type", "cluster", "question", "answer", "kind")}
        answered = {"said": self.answers, "picture": self.picture}
        more = {"truths": list(self.truths)} if len(self.truths) > 1 else {}
        scores = {"score": self.score("said"), "right": self.right, "cut": self.cut()}
        return plain | answered | more | scores


def ask(items: Sequence[Item], metric: Metric = exact) -> list[QuestionRecord]:
    """The questions of samples, before they are answered."""
    questions = []
    for item in items:
        truth, answer = item.sample.truth, expected(item.sample)
        kind = str(truth.get("answer_class", normalise(answer)))
        type_ = str(truth.get("type", truth.get("task", "all")))
        truths = tuple(dict.fromkeys((answer, *truth["answers"]))) if "answers" in truth else (answer,)
        if "answers" in truth and answer in truth["answers"]:
            truths = tuple(truth["answers"])  # people may agree
        questions.append(
            QuestionRecord(type_, item.cluster, question(item.sample), answer, kind, truths, metric)
        )
    return questions


def by_type(questions: Iterable[QuestionRecord]) -> dict[str, list[QuestionRecord]]:
    groups: dict[str, list[QuestionRecord]] = {}
    for each in questions:
        groups.setdefault(each.type, []).append(each)
    return groups


def estimate(questions: Sequence[QuestionRecord], condition: str = "said") -> Estimate:
    """Mean score, its interval over pictures."""
    return clustered([each.score(condition) for each in questions], [each.cluster for each in questions])


def scores(questions: Sequence[QuestionRecord], controls: Sequence[str]) -> dict[str, Any]:
    """Score, interval and controls of questions of one type; `cut`: answers that the limit of tokens cut off."""
    overall = estimate(questions)
    result: dict[str, Any] = {"score": overall.value, "ci": overall.interval}
    for control in controls:
        under = estimate(questions, control)
        result |= {control: under.value, f"{control}_ci": under.interval}
    result |= {"commonest": commonest([each.kind for each in questions]), "n": overall.n}
    return {
        **result,
        "cut": sum(each.cut() for each in questions),
        "smallest_effect": overall.smallest_effect,
    }


def scores_by_type(questions: Sequence[QuestionRecord], controls: Sequence[str]) -> dict[str, Any]:
    """Scores over all questions and by type. The commonest answer is the commonest of each question's own type."""
    types = {name: scores(group, controls) for name, group in sorted(by_type(questions).items())}
    whole = scores(questions, controls)
    whole["commonest"] = sum(each["commonest"] * each["n"] for each in types.values()) / len(questions)
    clusters = len({each.cluster for each in questions})
    return {**whole, "clusters": clusters, "by_type": types}
