"""Questions about pictures in words that training never used."""

from __future__ import annotations

from chiasm.data.sample import Sample
from chiasm.evaluation.asking import scores_by_type
from chiasm.evaluation.tasks import BLIND, SEEING, Exam, NotApplicable, Outcome, Task
from chiasm.evaluation.tasks.questions import about_pictures


class Phrasings(Task, name="phrasings"):
    """Exact match of greedy answers to questions whose wording is held out; `blind`: without the picture."""

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.sees:
            raise NotApplicable("the model has no encoder")
        items = exam.required("questions worded in a way that is held out", _matches, exam.sizes.phrasings)
        questions = exam.ask(items, {"said": SEEING, "blind": BLIND})
        return Outcome(
            scores_by_type(questions, ("blind",)), {"asked": [each.record() for each in questions]}
        )


def _matches(sample: Sample) -> bool:
    return about_pictures(sample) and sample.truth.get("phrasings") == "held_out"
