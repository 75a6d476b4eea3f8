"""Questions about written pages, by the resolution that each needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm.data.sample import Sample
from chiasm.errors import ChiasmError
from chiasm.evaluation.asking import scores_by_type
from chiasm.evaluation.tasks import BLIND, SEEING, Exam, NotApplicable, Outcome, Task
from chiasm.evaluation.tasks.questions import about_pictures
from chiasm.parts.bounds import Pixels, Questions

EDGES = (64, 96, 128, 192, 256, 384, 512, 768, 1024)


class ByResolution(Task, name="resolution"):
    """Greedy answers by the least pixels of a page's longer side that a question needs, with the blind control.

    Asked for by name: `--only resolution`, or options under `evaluation.tasks.resolution`. The types of its scores
    are bands of `truth["resolution"]`, as the source `pages` gives it.

    Args:
        questions: how many.
        edges: rising numbers of pixels at which a band ends.
    """

    on_request = True

    def __init__(self, *, questions: Questions = 600, edges: tuple[Pixels, ...] = EDGES):
        self.check_together({"edges": edges})
        self.questions, self.edges = questions, edges

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        edges = list(options["edges"])
        if not edges or edges != sorted(set(edges)):
            raise ChiasmError(f"edges are {edges}; rising numbers of pixels")

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.sees:
            raise NotApplicable("the model has no encoder")
        items = exam.required("questions that say which resolution they need", _matches, self.questions)
        questions = exam.ask(items, {"said": SEEING, "blind": BLIND})
        for question, item in zip(questions, items, strict=True):
            question.type = self._band(item.sample.truth["resolution"])
        return Outcome(scores_by_type(questions, ["blind"]), {"asked": [each.record() for each in questions]})

    def _band(self, resolution: int) -> str:
        """Its name; names sort as the numbers do."""
        width = len(str(self.edges[-1]))
        edge = next((edge for edge in self.edges if resolution <= edge), None)
        return f"above {self.edges[-1]} px" if edge is None else f"{edge:>{width}} px"


def _matches(sample: Sample) -> bool:
    return "resolution" in sample.truth and about_pictures(sample)
