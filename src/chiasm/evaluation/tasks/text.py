"""Questions told in words only: what the language model can do without a picture."""

from __future__ import annotations

from chiasm.data.sample import Sample
from chiasm.evaluation.asking import ask, told
from chiasm.evaluation.subject import expected, pictures_read
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task


class Text(Task):
    """Exact match of greedy answers to questions whose scene is described in words."""

    name = "text"

    def run(self, exam: Exam) -> Outcome:
        items = exam.collect(_wanted, exam.sizes.text)
        if not items:
            raise NotApplicable("the held-out data has no questions in words only, or none were asked for")
        asked = ask(items)
        for each, said in zip(asked, exam.subject.answer([item.sample for item in items]), strict=True):
            each.said["said"] = said
        return Outcome(told(asked, ()), {"asked": [each.record() for each in asked]})


def _wanted(sample: Sample) -> bool:
    return not pictures_read(sample) and bool(expected(sample))
