"""Visual sentences: what follows from pictures alone, judged by an exact checker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chiasm.data.sample import Message, Picture, Sample
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task
from chiasm.evaluation.tasks.generation import MEASURES, checker_of, judge

EXAMPLES = 12  # sentences in the report


class Analogies(Task, name="analogies"):
    """Held-out visual sentences (x1, y1, x2) completed and read back cell by cell.

    score: share of answers that are exactly the right scene. copying: the same for x2 given back as it is, which
    is never right. object, place, count: see `generation`; copying does well there.
    reconstruction: the true answers through the image tokenizer alone.
    """

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.draws:
            raise NotApplicable("the model has no image head")
        items = exam.required("visual sentences", _matches, exam.sizes.pictures)
        samples = [_as_question(item.sample) for item in items]
        questions, answers = zip(*(_images(sample) for sample in samples), strict=True)
        generated = exam.subject.draw(samples, seed=exam.seed)
        reconstructed = exam.subject.reconstruct(list(answers))
        checker = checker_of(exam.source, samples[0].truth["scene"])

        def judged(images: Sequence[Any]) -> dict[str, Any]:
            return judge([checker.read(picture).cells for picture in images], samples)

        judged_generated, ceiling = judged(generated), judged(reconstructed)
        copied = judged([row[-1].open() for row in questions])
        right = judged_generated["all"]
        scores: dict[str, Any] = {name: judged_generated[name].value for name in MEASURES}
        scores |= {"score": right.value, "ci": right.interval, "n": len(samples)}
        scores |= {"copying": copied["all"].value, "smallest_effect": right.smallest_effect}
        scores |= {"copying_place": copied["place"].value, "reconstruction": {"all": ceiling["all"].value}}
        scores["by_kind"] = _by_kind(samples, [checker.read(picture).cells for picture in generated])
        examples: list[dict[str, Any]] = []
        images: dict[str, Any] = {}
        for i, (row, answer) in enumerate(list(zip(questions, answers, strict=True))[:EXAMPLES]):
            files = {f"sentence-{i}-{j}.webp": picture.open() for j, picture in enumerate((*row, answer))}
            generated_file = f"sentence-{i}-drawn.webp"
            images |= {**files, generated_file: generated[i]}
            examples.append(
                {"pictures": list(files), "drawn": generated_file, "kind": samples[i].truth.get("kind")}
            )
        return Outcome(scores, {"sentences": examples}, images)


def _by_kind(samples: Sequence[Sample], readings: Sequence[Any]) -> dict[str, Any]:
    """Exact answers by the kind of change."""
    scores = {}
    for kind in sorted({str(sample.truth.get("kind")) for sample in samples}):
        chosen = [i for i, sample in enumerate(samples) if str(sample.truth.get("kind")) == kind]
        right = judge([readings[i] for i in chosen], [samples[i] for i in chosen])["all"]
        scores[kind] = {"score": right.value, "ci": right.interval, "n": len(chosen)}
    return scores


def _matches(sample: Sample) -> bool:
    (first, *others) = sample.messages
    pictures = all(isinstance(item, Picture) for item in first.content)
    return first.role == "document" and not others and pictures and "scene" in sample.truth


def _as_question(sample: Sample) -> Sample:
    """The sentence as a question, whose answer is its last picture."""
    content = sample.messages[0].content
    return replace(sample, messages=(Message("user", content[:-1]), Message("assistant", content[-1:])))


def _images(sample: Sample) -> tuple[list[Picture], Picture]:
    user, answer = sample.messages
    return [item for item in user.content if isinstance(item, Picture)], next(
        item for item in answer.content if isinstance(item, Picture)
    )
