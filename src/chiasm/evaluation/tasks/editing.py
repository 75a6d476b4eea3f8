"""Pictures changed after an instruction: the change that was asked for, and all else left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image

from chiasm.data.documents import writes_picture
from chiasm.data.sample import Sample
from chiasm.evaluation.fidelity import pixels_of, psnr
from chiasm.evaluation.statistics import Estimate, clustered, mean_radius
from chiasm.evaluation.subject import prompt_and_words, written_image
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task
from chiasm.evaluation.tasks.generation import checker_of

TASKS = ("edit", "instructed", "referred")  # of the built-in world
EXAMPLES = 16  # edits in the report


class Editing(Task, name="editing"):
    """Held-out instructions to change a picture, whose answers are read back cell by cell.

    score, change: share of the answers in whose changed cells stands what was asked for. kept: share of the other
    cells that hold what they held. all: share of the answers that are exactly the right scene. psnr_outside: dB
    between answer and source over the pixels that no change touches (100: not one differs), the mean over answers.
    reconstruction: the true answers through the image tokenizer alone, the ceiling of whatever writes its codes.
    untouched: the sources given back as they are, which changes nothing and keeps all.
    """

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.draws:
            raise NotApplicable("the model has no image head")
        if not exam.subject.sees:
            raise NotApplicable("the model reads no images, and so none that it could change")
        items = exam.required("pictures to change that can be checked", _matches, exam.sizes.pictures)
        samples = [item.sample for item in items]
        edited = exam.subject.draw(samples, seed=exam.seed)
        reconstructed = exam.subject.reconstruct([written_image(sample) for sample in samples])
        checker = checker_of(exam.source, samples[0].truth["scene"])
        changes = [exam.source.change(sample) for sample in samples]  # type: ignore[attr-defined]
        sources = exam.subject.targets([change.source for change in changes])
        masks = [change.mask() for change in changes]
        outside = [psnr_outside(*each) for each in zip(edited, sources, masks, strict=True)]
        floor = [psnr_outside(*each) for each in zip(reconstructed, sources, masks, strict=True)]

        readings = [
            [checker.read(each).cells for each in images] for images in (edited, reconstructed, sources)
        ]
        own, ceiling, untouched = (judge(each, samples) for each in readings)
        change, mean, radius = own["change"], float(np.mean(outside)), mean_radius(outside)
        scores: dict[str, Any] = {name: estimate.value for name, estimate in own.items()}
        scores |= {"score": change.value, "ci": change.interval, "n": len(samples)}
        scores |= {"intervals": {name: each.interval for name, each in own.items()}}
        scores |= {"note": f"{mean:.1f} dB outside the changes"}
        scores |= {"psnr_outside": mean}
        if len(samples) > 1:  # one alone says nothing of others
            scores["psnr_outside_ci"] = [mean - radius, mean + radius]
        scores |= {"smallest_effect": change.smallest_effect, "by_kind": _by_kind(samples, readings[0])}
        scores["reconstruction"] = {name: each.value for name, each in ceiling.items()}
        scores["reconstruction"]["psnr_outside"] = float(np.mean(floor))
        scores["untouched"] = {name: each.value for name, each in untouched.items()}
        return Outcome(scores, *_examples(samples, sources, edited))


def judge(readings: Sequence[Sequence[Any]], samples: Sequence[Sample]) -> dict[str, Estimate]:
    """`change`, `kept` and `all` of what the checker recognised in answers."""
    changes: list[float] = []
    wholes: list[float] = []
    kept: list[float] = []
    clusters: list[int] = []
    for i, (cells, sample) in enumerate(zip(readings, samples, strict=True)):
        before, after = (_cells(sample.truth[name]) for name in ("before", "scene"))
        right = [cell == wanted for cell, wanted in zip(cells, after, strict=True)]
        changed = [one != other for one, other in zip(before, after, strict=True)]
        changes.append(float(all(ok for ok, other in zip(right, changed, strict=True) if other)))
        wholes.append(float(all(right)))
        stays = [float(ok) for ok, other in zip(right, changed, strict=True) if not other]
        kept += stays
        clusters += [i] * len(stays)
    each = range(len(samples))
    estimates = {"change": clustered(changes, each), "all": clustered(wholes, each)}
    return {**estimates, **({"kept": clustered(kept, clusters)} if kept else {})}


def psnr_outside(edited: Image.Image, source: Image.Image, changed: Bool[np.ndarray, "h w"]) -> float:
    """dB between an answer and its source but for the pixels that were to be changed."""
    one, other = (pixels_of(image.resize(source.size)) for image in (edited, source))
    stays = ~_resized(changed, (source.size[1], source.size[0]))
    if not stays.any():
        return 100.0
    mask = torch.from_numpy(stays)
    return float(psnr(one[:, :, mask][..., None], other[:, :, mask][..., None]))


def _resized(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """A mask at another size, in which every pixel that it touches is of it."""
    if mask.shape == size:
        return mask
    return (
        np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR)) > 0
    )


def _cells(scene: Any) -> list[Any]:
    """The emoji of every cell in reading order, or None."""
    held = {thing.cell: thing.emoji for thing in scene.things}
    return [held.get(cell) for cell in range(scene.cells)]


def _matches(sample: Sample) -> bool:
    return writes_picture(sample) and sample.truth.get("task") in TASKS


def _by_kind(samples: Sequence[Sample], readings: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Changes that were made, by their kind."""
    scores = {}
    for kind in sorted({str(sample.truth["kind"]) for sample in samples}):
        chosen = [i for i, sample in enumerate(samples) if sample.truth["kind"] == kind]
        change = judge([readings[i] for i in chosen], [samples[i] for i in chosen])["change"]
        scores[kind] = {"score": change.value, "ci": change.interval, "n": len(chosen)}
    return scores


def _examples(
    samples: Sequence[Sample], sources: Sequence[Image.Image], edited: Sequence[Image.Image]
) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    """The first edits for the report; the samples stand in random order already."""
    rows: list[dict[str, Any]] = []
    files: dict[str, Image.Image] = {}
    for i, sample in enumerate(samples[:EXAMPLES]):
        named = {"source": sources[i], "edited": edited[i], "true": written_image(sample).open()}
        names = {what: f"editing-{i}-{what}.webp" for what in named}
        files |= {names[what]: image for what, image in named.items()}
        rows.append({"caption": prompt_and_words(sample, edited[i]), "images": names})
    return {"rows": rows}, files
