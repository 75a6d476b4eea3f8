"""Visual sentences: what follows from pictures alone, judged by an exact checker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chiasm.data.sample import Message, Picture, Sample
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task
from chiasm.evaluation.tasks.generation import MEASURES, checker_of, judge

SHOWN = 12  # sentences in the report


class Analogies(Task, name="analogies"):
    """Held-out visual sentences (x1, y1, x2) completed and read back cell by cell.

    score: share of answers that are exactly the right scene. copying: the same for x2 given back as it is, which
    is never right. object, place, count: see `generation`; copying does well there.
    reconstruction: the true answers through the image tokenizer alone.
    """

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.draws:
            raise NotApplicable("the model has no image head")
        items = exam.required("visual sentences", _wanted, exam.sizes.pictures)
        samples = [_asked(item.sample) for item in items]
        questions, answers = zip(*(_pictures(sample) for sample in samples), strict=True)
        drawn = exam.subject.draw(samples, seed=exam.seed)
        rebuilt = exam.subject.reconstruct(list(answers))
        checker = checker_of(exam.source, samples[0].truth["scene"])

        def judged(pictures: Sequence[Any]) -> dict[str, Any]:
            return judge([checker.read(picture).cells for picture in pictures], samples)

        made, ceiling = judged(drawn), judged(rebuilt)
        copied = judged([row[-1].open() for row in questions])
        right = made["all"]
        scores: dict[str, Any] = {name: made[name].value for name in MEASURES}
        scores |= {"score": right.value, "ci": right.interval, "n": len(samples)}
        scores |= {"copying": copied["all"].value, "smallest_effect": right.smallest_effect}
        scores |= {"copying_place": copied["place"].value, "reconstruction": {"all": ceiling["all"].value}}
        scores["by_kind"] = _by_kind(samples, [checker.read(picture).cells for picture in drawn])
        shown: list[dict[str, Any]] = []
        pictures: dict[str, Any] = {}
        for i, (row, answer) in enumerate(list(zip(questions, answers, strict=True))[:SHOWN]):
            files = {f"sentence-{i}-{j}.webp": picture.open() for j, picture in enumerate((*row, answer))}
            made_file = f"sentence-{i}-drawn.webp"
            pictures |= {**files, made_file: drawn[i]}
            shown.append({"pictures": list(files), "drawn": made_file, "kind": samples[i].truth.get("kind")})
        return Outcome(scores, {"sentences": shown}, pictures)


def _by_kind(samples: Sequence[Sample], readings: Sequence[Any]) -> dict[str, Any]:
    """Exact answers by the kind of change."""
    told = {}
    for kind in sorted({str(sample.truth.get("kind")) for sample in samples}):
        chosen = [i for i, sample in enumerate(samples) if str(sample.truth.get("kind")) == kind]
        right = judge([readings[i] for i in chosen], [samples[i] for i in chosen])["all"]
        told[kind] = {"score": right.value, "ci": right.interval, "n": len(chosen)}
    return told


def _wanted(sample: Sample) -> bool:
    (first, *others) = sample.messages
    pictures = all(isinstance(item, Picture) for item in first.content)
    return first.role == "document" and not others and pictures and "scene" in sample.truth


def _asked(sample: Sample) -> Sample:
    """The sentence as a question, whose answer is its last picture."""
    content = sample.messages[0].content
    return replace(sample, messages=(Message("user", content[:-1]), Message("assistant", content[-1:])))


def _pictures(sample: Sample) -> tuple[list[Picture], Picture]:
    asked, answer = sample.messages
    return [item for item in asked.content if isinstance(item, Picture)], next(
        item for item in answer.content if isinstance(item, Picture)
    )
