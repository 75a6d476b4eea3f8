"""Questions told in words only: what the language model can do without a picture."""

from __future__ import annotations

from chiasm.data.sample import Sample
from chiasm.evaluation.asking import scores_by_type
from chiasm.evaluation.subject import answers_in_words, pictures_read
from chiasm.evaluation.tasks import SEEING, Exam, Outcome, Task


class Text(Task, name="text"):
    """Greedy answers to questions whose scene is described in words."""

    def run(self, exam: Exam) -> Outcome:
        items = exam.required("questions in words only", _wanted, exam.sizes.text)
        asked = exam.ask(items, {"said": SEEING})
        return Outcome(scores_by_type(asked, ()), {"asked": [each.record() for each in asked]})


def _wanted(sample: Sample) -> bool:
    return not pictures_read(sample) and answers_in_words(sample)
