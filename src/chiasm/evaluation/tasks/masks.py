"""Masks of what questions name, against the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from chiasm.data.sample import Sample
from chiasm.evaluation.statistics import clustered
from chiasm.evaluation.subject import pictures_read, question, with_pictures
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task
from chiasm.evaluation.tasks.questions import shrunk, swapped

EXAMPLES = 12  # in the report
PAINT = (255, 0, 160)


class MaskTask(Task, name="masks"):
    """What is marked for a question, against the union of the masks that it asks for.

    score: gIoU, the mean over questions of intersection over union; where nothing is meant and nothing marked, 1.
    cumulative: cIoU, all intersections over all unions, in which large things weigh more. shuffled: gIoU of masks
    of another question's image. everything: gIoU of marking the whole image.
    """

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.marks:
            raise NotApplicable("the model has no mask head")
        items = exam.required("questions that ask for masks", _matches, exam.sizes.questions)
        samples = [item.sample for item in items]
        clusters = [item.cluster for item in items]
        true = [np.logical_or.reduce(each.masks.open(), axis=0) for each in samples if each.masks is not None]
        marked = exam.subject.mark(samples)
        overlaps = [overlap(*pair) for pair in zip(marked, true, strict=True)]
        estimate = clustered([_share(*each) for each in overlaps], clusters)
        unions = sum(union for _, union in overlaps)
        scores: dict[str, Any] = {
            "score": estimate.value,
            "ci": estimate.interval,
            "n": len(samples),
            "smallest_effect": estimate.smallest_effect,
            "cumulative": sum(both for both, _ in overlaps) / max(unions, 1),
            "everything": _mean([np.ones_like(mask) for mask in true], true),
        }
        swap = swapped(samples, exam.seed)
        if swap:
            others = exam.subject.mark([with_pictures(each, swap) for each in samples])
            same = [(one, mask) for one, mask in zip(others, true, strict=True) if one.shape == mask.shape]
            scores["shuffled"] = _mean(*map(list, zip(*same, strict=True))) if same else None
        examples, images = _examples(samples, marked, true)
        return Outcome(scores, {"marked": examples}, images)


def overlap(marked: Bool[np.ndarray, "h w"], true: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """Pixels of both, and of either."""
    return int((marked & true).sum()), int((marked | true).sum())


def _share(both: int, either: int) -> float:
    return both / either if either else 1.0


def _mean(marked: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    return float(np.mean([_share(*overlap(*pair)) for pair in zip(marked, true, strict=True)]))


def _matches(sample: Sample) -> bool:
    return sample.masks is not None and bool(pictures_read(sample))


def _examples(
    samples: Sequence[Sample], marked: Sequence[np.ndarray], true: Sequence[np.ndarray]
) -> tuple[list[dict[str, Any]], dict[str, Image.Image]]:
    examples: list[dict[str, Any]] = []
    images = {}
    for i, sample in enumerate(samples[:EXAMPLES]):
        name = f"mask-{i}.webp"
        images[name] = shrunk(_painted(pictures_read(sample)[-1].open(), marked[i]))
        share = _share(*overlap(marked[i], true[i]))
        examples.append({"question": question(sample), "picture": name, "overlap": share})
    return examples, images


def _painted(image: Image.Image, mask: Bool[np.ndarray, "h w"]) -> Image.Image:
    pixels = np.asarray(image.convert("RGB")).copy()
    pixels[mask] = pixels[mask] // 2 + np.array(PAINT, dtype=np.uint8) // 2
    return Image.fromarray(pixels)
