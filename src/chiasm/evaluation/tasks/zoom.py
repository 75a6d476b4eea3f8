"""Questions about images, answered in one look and in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from chiasm.evaluation.asking import QuestionRecord, scores_by_type
from chiasm.evaluation.subject import ModelSubject
from chiasm.evaluation.tasks import SEEING, Exam, NotApplicable, Outcome, Task
from chiasm.evaluation.tasks.questions import about_pictures
from chiasm.inference.zoom import Zoom, ZoomedAnswer
from chiasm.parts.bounds import Positive, Questions


class ZoomTask(Task, name="zoom"):
    """Greedy answers with a second look at the part of the image that is asked about; `off`: without it.

    Asked for by name: `--only zoom`, or options under `evaluation.tasks.zoom`. `looked`: the share of questions for
    which the model named a part to look at; `chosen`: for which that answer was the likelier one.

    Args:
        questions: how many; the least of this and `evaluation.questions`.
        box_question: asks for the part; with {question}.
        focus_question: asks again, beside the part; with {question}.
        scale: what the numbers of the model's boxes count to.
        margin: pixels of the image round the part.
    """

    on_request = True

    def __init__(
        self,
        *,
        questions: Questions = 200,
        box_question: str = Zoom.box_question,
        focus_question: str = Zoom.focus_question,
        scale: Positive = Zoom.scale,
        margin: Annotated[int, Field(ge=0, le=16_384)] = Zoom.margin,
    ):
        self.questions = questions
        self.settings = Zoom(box_question, focus_question, scale, margin)

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.sees:
            raise NotApplicable("the model has no encoder")
        if not isinstance(exam.subject, ModelSubject):
            raise NotApplicable("perplexity needs a model of Chiasm")
        count = min(self.questions, exam.sizes.questions)
        items = exam.required("questions about pictures", about_pictures, count)
        questions = exam.ask(items, {"off": SEEING})
        subject, samples = exam.subject, [item.sample for item in items]
        answers = subject.zoom(samples, self.settings)
        for question, answer in zip(questions, answers, strict=True):
            question.answers = {"said": answer.text, **question.answers}
        scores = scores_by_type(questions, ["off"])
        scores["looked"] = sum(answer.focus is not None for answer in answers) / len(answers)
        scores["chosen"] = sum(answer.zoomed for answer in answers) / len(answers)
        return Outcome(scores, {"asked": _records(questions, answers)})


def _records(questions: Sequence[QuestionRecord], answers: Sequence[ZoomedAnswer]) -> list[dict[str, object]]:
    return [
        question.record()
        | {
            "box": answer.box_answer,
            "crop": answer.focus and list(answer.focus.crop),
            "losses": list(answer.losses),
        }
        for question, answer in zip(questions, answers, strict=True)
    ]
