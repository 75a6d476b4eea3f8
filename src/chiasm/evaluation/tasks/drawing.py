"""Pictures drawn on one's own data, where no checker knows what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from chiasm.data.mask_answers import ANSWER
from chiasm.data.sample import Picture, Sample
from chiasm.errors import ChiasmError
from chiasm.evaluation.fidelity import NETWORK, features, frechet, pixels_of, psnr, ssim
from chiasm.evaluation.statistics import mean_radius
from chiasm.evaluation.subject import question, written_image
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task

DISTANCE = f"FD-{NETWORK}"
EXAMPLES = 16  # prompts in the report


class DrawingTask(Task, name="drawing"):
    """Pictures of prompts without a scene: reconstructions, and how far drawn pictures lie from true ones.

    reconstruction: PSNR (dB) and SSIM of the true pictures through the image tokenizer, at its size, and their
    distance, the least that drawing can hope for. FD-<network>: Fréchet distance over that network's features
    between drawn and true pictures. It depends on their number: only figures of equally many compare.
    """

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.draws:
            raise NotApplicable("the model has no image head")
        items = exam.required("prompts of a picture without a scene", _matches, exam.sizes.pictures)
        samples = [item.sample for item in items]
        answers = [written_image(sample) for sample in samples]
        targets = exam.subject.targets(answers)
        reconstructed = exam.subject.reconstruct(answers)
        generated = exam.subject.draw(samples, seed=exam.seed)
        noise = [float(psnr(*_pair(a, b))) for a, b in zip(reconstructed, targets, strict=True)]
        similarity = [float(ssim(*_pair(a, b))) for a, b in zip(reconstructed, targets, strict=True)]
        mean, radius = float(np.mean(noise)), mean_radius(noise)
        scores: dict[str, Any] = {
            "n": len(samples),
            "reconstruction": {"psnr": mean, "ssim": float(np.mean(similarity))},
        }
        if len(samples) > 1:
            scores["reconstruction"]["psnr_ci"] = [mean - radius, mean + radius]
            scores |= _distances(targets, reconstructed, generated, scores["reconstruction"])
        else:
            scores["left_out"] = f"{DISTANCE} needs two pictures or more"
        return Outcome(scores, *_examples(samples, targets, reconstructed, generated))


def _matches(sample: Sample) -> bool:
    last = sample.messages[-1]
    draws = last.role == "assistant" and any(isinstance(item, Picture) for item in last.content)
    return draws and "scene" not in sample.truth and ANSWER not in sample.truth


def _distances(
    targets: Sequence[Image.Image],
    reconstructed: Sequence[Image.Image],
    generated: Sequence[Image.Image],
    reconstruction: dict[str, Any],
) -> dict[str, Any]:
    """The distance of drawn pictures; that of reconstructions is added to theirs. Why not, without the network."""
    try:
        target_features = _features(targets)
    except ChiasmError as error:
        return {"left_out": f"{DISTANCE}: {error}"}
    reconstruction[DISTANCE] = frechet(_features(reconstructed), target_features)
    return {DISTANCE: frechet(_features(generated), target_features)}


def _features(pictures: Sequence[Image.Image]) -> Float[Tensor, "n f"]:
    """Of each picture by itself, as their sizes may differ."""
    return torch.cat([features(pixels_of(picture)) for picture in pictures])


def _pair(one: Image.Image, other: Image.Image) -> tuple[Tensor, Tensor]:
    return pixels_of(one), pixels_of(other.resize(one.size, Image.Resampling.BICUBIC))


def _examples(
    samples: Sequence[Sample],
    targets: Sequence[Image.Image],
    reconstructed: Sequence[Image.Image],
    generated: Sequence[Image.Image],
) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    """The first pictures for the report; the samples stand in random order already."""
    rows: list[dict[str, Any]] = []
    files: dict[str, Image.Image] = {}
    for i, sample in enumerate(samples[:EXAMPLES]):
        named = {"true": targets[i], "reconstructed": reconstructed[i], "drawn": generated[i]}
        names = {what: f"drawing-{i}-{what}.webp" for what in named}
        files |= {names[what]: image for what, image in named.items()}
        rows.append({"caption": question(sample), "images": names})
    return {"rows": rows}, files
