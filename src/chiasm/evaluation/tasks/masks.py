"""Masks of what questions name, against the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from chiasm.data.mask_answers import ANSWER, MaskAnswer, MaskForm, union
from chiasm.data.mask_texts import Mask
from chiasm.data.sample import Sample
from chiasm.evaluation.statistics import clustered
from chiasm.evaluation.subject import pictures_read, question, with_pictures
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task
from chiasm.evaluation.tasks.questions import shrunk, swapped

EXAMPLES = 12  # in the report
PAINT = (255, 0, 160)


class MaskTask(Task, name="masks"):
    """What is marked for a question, against the union of the masks that it asks for.

    A mask head marks, or an answer in words or an image is read back, as the source's `mask_form` has it.
    score: gIoU, the mean over questions of intersection over union; where nothing is meant and nothing marked, 1.
    cumulative: cIoU, all intersections over all unions, in which large things weigh more. shuffled: gIoU of masks
    of another question's image. everything: gIoU of marking the whole image. by_type: gIoU of what a name asks for,
    of what a box, a point or a stroke is on, and of what is not there. unreadable: share of answers in words
    that are no masks, each of which scores 0. oracle: gIoU of the true masks in such words, or through the image
    tokenizer: what their form allows, of a mask head all.
    """

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.sees:
            raise NotApplicable("the model has no encoder")
        items = exam.required("questions that ask for masks", _matches, exam.sizes.questions)
        samples = [item.sample for item in items]
        form = _form(exam, samples[0])
        clusters = [item.cluster for item in items]
        true = [union(each.masks) if each.masks is not None else each.truth[ANSWER].mask for each in samples]
        marked = _marked(exam, form, samples)
        overlaps = [overlap(*pair) for pair in zip(marked, true, strict=True)]
        shares = [_share(*each) for each in overlaps]
        estimate = clustered(shares, clusters)
        scores: dict[str, Any] = {
            "score": estimate.value,
            "ci": estimate.interval,
            "n": len(samples),
            "smallest_effect": estimate.smallest_effect,
            "cumulative": sum(both for both, _ in overlaps) / max(sum(either for _, either in overlaps), 1),
            "everything": _mean([np.ones_like(mask) for mask in true], true),
            "unreadable": sum(each is None for each in marked) / len(marked),
            "oracle": 1.0 if form == "head" else _mean(_best(exam, form, samples), true),
            "by_type": _by_type(samples, shares, clusters),
        }
        swap = swapped(samples, exam.seed)
        if swap:
            others = _marked(exam, form, [with_pictures(each, swap) for each in samples])
            same = [
                (other, mask)
                for other, mask in zip(others, true, strict=True)
                if other is None or other.shape == mask.shape
            ]
            scores["shuffled"] = _mean(*map(list, zip(*same, strict=True))) if same else None
        questions = [
            {"question": question(each), "score": share} for each, share in zip(samples, shares, strict=True)
        ]
        examples, images = _examples(samples, marked, shares)
        return Outcome(scores, {"asked": questions, "marked": examples}, images)


def _form(exam: Exam, sample: Sample) -> MaskForm:
    """How a sample's question is answered; raises NotApplicable where the subject cannot do so."""
    form: MaskForm = "head" if sample.masks is not None else sample.truth[ANSWER].form
    if form == "head" and not exam.subject.marks:
        raise NotApplicable("the model has no mask head")
    if form == "image" and not exam.subject.draws:
        raise NotApplicable("the model has no image head, which masks as images need")
    return form


def _marked(exam: Exam, form: MaskForm, samples: Sequence[Sample]) -> Sequence[Mask | None]:
    """What the subject marks for each sample; None for words that are no mask."""
    if form == "head":
        return exam.subject.mark(samples)
    answers: Sequence[str | Image.Image] = (
        exam.subject.draw(samples, seed=exam.seed) if form == "image" else exam.subject.answer(samples)
    )
    return [sample.truth[ANSWER].read(answer) for sample, answer in zip(samples, answers, strict=True)]


def _best(exam: Exam, form: MaskForm, samples: Sequence[Sample]) -> Sequence[Mask | None]:
    """What would be read if every answer were the true one."""
    answers: list[MaskAnswer] = [sample.truth[ANSWER] for sample in samples]
    contents: Sequence[Any] = [answer.content() for answer in answers]
    if form == "image":
        contents = exam.subject.reconstruct(contents)
    return [answer.read(content) for answer, content in zip(answers, contents, strict=True)]


def _by_type(
    samples: Sequence[Sample], shares: Sequence[float], clusters: Sequence[int]
) -> dict[str, dict[str, Any]]:
    types = [str(sample.truth.get("type", "all")) for sample in samples]
    scores: dict[str, dict[str, Any]] = {}
    for name in sorted(set(types)):
        rows = [i for i, each in enumerate(types) if each == name]
        estimate = clustered([shares[i] for i in rows], [clusters[i] for i in rows])
        scores[name] = {"score": estimate.value, "ci": estimate.interval, "n": len(rows)}
    return scores


def overlap(marked: Mask | None, true: Mask) -> tuple[int, int]:
    """Pixels of both, and of either; of what cannot be read none of both, and at least one."""
    if marked is None:
        return 0, max(int(true.sum()), 1)
    return int((marked & true).sum()), int((marked | true).sum())


def _share(both: int, either: int) -> float:
    return both / either if either else 1.0


def _mean(marked: Sequence[Mask | None], true: Sequence[Mask]) -> float:
    return float(np.mean([_share(*overlap(*pair)) for pair in zip(marked, true, strict=True)]))


def _matches(sample: Sample) -> bool:
    return (sample.masks is not None or ANSWER in sample.truth) and bool(pictures_read(sample))


def _examples(
    samples: Sequence[Sample], marked: Sequence[Mask | None], shares: Sequence[float]
) -> tuple[list[dict[str, Any]], dict[str, Image.Image]]:
    examples: list[dict[str, Any]] = []
    images = {}
    for i, sample in enumerate(samples[:EXAMPLES]):
        name = f"mask-{i}.webp"
        images[name] = shrunk(_painted(pictures_read(sample)[-1].open(), marked[i]))
        examples.append({"question": question(sample), "picture": name, "overlap": shares[i]})
    return examples, images


def _painted(image: Image.Image, mask: Mask | None) -> Image.Image:
    if mask is None:
        return image
    pixels = np.asarray(image.convert("RGB")).copy()
    pixels[mask] = pixels[mask] // 2 + np.array(PAINT, dtype=np.uint8) // 2
    return Image.fromarray(pixels)
