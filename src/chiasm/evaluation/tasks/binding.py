"""Lists in words: what belongs to what, on lists as long as those of training and on longer ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import PositiveInt

from chiasm.data.sample import Message, Sample
from chiasm.evaluation.asking import QuestionRecord, scores_by_type
from chiasm.evaluation.metrics import normalise
from chiasm.evaluation.subject import answers_in_words, pictures_read
from chiasm.evaluation.tasks import SEEING, Control, Exam, Item, Outcome, Task

WITHIN, BEYOND = "within", "beyond"


class BindingQuestions(Task, name="binding"):
    """Greedy answers to questions about lists of the data source `binding`, given in words alone.

    by_type: `within`, lists no longer than those of training, and `beyond`. by_length: each length by itself.
    swap: lists in which what is asked for has changed places with another thing. `symbol`: share of the answers
    that name it all the same; `position`: share that name what stands in its place now. The rest are neither.

    Args:
        trained: things of the longest list of training.
    """

    def __init__(self, *, trained: PositiveInt = 6):
        self.trained = trained

    def run(self, exam: Exam) -> Outcome:
        items = exam.required("questions about lists in words", _matches, exam.sizes.text)
        questions = exam.ask(items, {"said": SEEING, "swapped": Control(change=_swapped)})
        lengths = [item.sample.truth["length"] for item in items]
        for each, length in zip(questions, lengths, strict=True):
            each.type = WITHIN if length <= self.trained else BEYOND
        scores = scores_by_type(questions, ())
        scores["by_length"] = {
            str(length): _share(questions, lengths, length) for length in sorted(set(lengths))
        }
        scores["swap"] = {
            kind: swaps for kind in (WITHIN, BEYOND) if (swaps := _swaps(questions, items, kind)) is not None
        }
        return Outcome(scores, {"asked": [each.record() for each in questions]})


def _share(questions: list[QuestionRecord], lengths: list[int], length: int) -> dict[str, Any]:
    scores = [each.score("said") for each, own in zip(questions, lengths, strict=True) if own == length]
    return {"score": sum(scores) / len(scores), "n": len(scores)}


def _swaps(questions: list[QuestionRecord], items: list[Item], kind: str) -> dict[str, float] | None:
    """By what the answers go when two things change places."""
    answered = [
        (each, item.sample.truth["in_its_place"])
        for each, item in zip(questions, items, strict=True)
        if each.type == kind and "swapped" in item.sample.truth
    ]
    if not answered:
        return None
    symbol = sum(each.score("swapped") == 1 for each, _ in answered)
    position = sum(normalise(each.answers["swapped"]) == normalise(other) for each, other in answered)
    return {"symbol": symbol / len(answered), "position": position / len(answered), "n": len(answered)}


def _matches(sample: Sample) -> bool:
    return sample.truth.get("task") == "binding" and not pictures_read(sample) and answers_in_words(sample)


def _swapped(sample: Sample) -> Sample:
    """The sample with its list in another order, where it has one."""
    if "swapped" not in sample.truth:
        return sample
    return replace(sample, messages=(Message("user", (sample.truth["swapped"],)), *sample.messages[1:]))
