"""Questions in words only: what the language model can do without a picture."""

from __future__ import annotations

from chiasm.data.sample import Sample
from chiasm.evaluation.asking import scores_by_type
from chiasm.evaluation.subject import answers_in_words, pictures_read
from chiasm.evaluation.tasks import SEEING, Exam, Outcome, Task


class Text(Task, name="text"):
    """Greedy answers to questions whose scene is described in words."""

    def run(self, exam: Exam) -> Outcome:
        items = exam.required("questions in words only", _matches, exam.sizes.text)
        questions = exam.ask(items, {"said": SEEING})
        return Outcome(scores_by_type(questions, ()), {"asked": [each.record() for each in questions]})


def _matches(sample: Sample) -> bool:
    return not pictures_read(sample) and answers_in_words(sample)
