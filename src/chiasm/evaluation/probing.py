"""What an encoder's features are worth by themselves: labelled pictures, learnt from and held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm import parts
from chiasm.data import Picture, Source
from chiasm.data.cut import cut
from chiasm.data.documents import Contract
from chiasm.distribution.devices import fitting
from chiasm.encoders import Encoder
from chiasm.evaluation.statistics import clustered, commonest
from chiasm.evaluation.subject import ModelSubject, expected, pictures_read
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome
from chiasm.model import Model

NAMED = 5  # names of those that are left out
TOGETHER = 64  # pictures that go through an encoder at once

Features = Float[Tensor, "n c"]
Classes = Int[Tensor, " n"]
Classifier = Callable[[Features, Classes, Features, int], Classes]


@dataclass(frozen=True)
class Labelled:
    """Images of one thing each, and its name. unlabelled: samples passed over that are none such."""

    images: Sequence[Picture]
    names: Sequence[str]
    unlabelled: int = 0


def probe(exam: Exam, classify: Classifier) -> Outcome:
    """Scores of a classifier on features of the encoder as it is, and of the same encoder untrained.

    classify: from features and classes that are learnt from, the classes of other features.
    Held-out pictures with a name that nothing is learnt of are left out, and counted as `unlearnt`.
    """
    if exam.labelled is None:
        raise NotApplicable("the recipe names no labelled images; set evaluation.labelled to two sources")
    if not isinstance(exam.subject, ModelSubject) or exam.subject.model.encoder is None:
        raise NotApplicable("the model has no encoder")
    model = exam.subject.model
    learnt, held_out = (labelled(exam, source) for source in exam.labelled)
    labels = sorted(set(learnt.names))
    unlearnt = [name for name in held_out.names if name not in labels]
    usable = [i for i, name in enumerate(held_out.names) if name in labels]
    if len(labels) < 2 or not usable:
        raise NotApplicable("the labelled images have fewer than two names in common")
    unlabelled = learnt.unlabelled + held_out.unlabelled
    held_out = Labelled([held_out.images[i] for i in usable], [held_out.names[i] for i in usable])
    answers = torch.tensor([labels.index(name) for name in held_out.names])

    def scored(encoder: Encoder) -> list[float]:
        learnt_features, held_out_features = (
            features(model, encoder, each.images) for each in (learnt, held_out)
        )
        classes = torch.tensor([labels.index(name) for name in learnt.names])
        return [
            float(right)
            for right in classify(learnt_features, classes, held_out_features, len(labels)) == answers
        ]

    assert model.encoder is not None
    right = scored(model.encoder)
    estimate = clustered(right, range(len(right)))
    scores: dict[str, Any] = {"score": estimate.value, "ci": estimate.interval}
    untrained_encoder = untrained(model, exam.seed)
    if untrained_encoder is not None:
        control = clustered(scored(untrained_encoder), range(len(right)))
        scores |= {"untrained": control.value, "untrained_ci": control.interval}
    scores |= {
        "chance": 1 / len(labels),
        "commonest": commonest(held_out.names),
        "classes": len(labels),
        "learnt_from": len(learnt.names),
        "n": estimate.n,
        "unlearnt": len(unlearnt),
        "unlabelled": unlabelled,
        "smallest_effect": estimate.smallest_effect,
    }
    reasons = []
    if unlearnt:
        reasons.append(
            f"{len(unlearnt)} held-out images are left out, whose names are not among the learnt ones: "
            f"{', '.join(sorted(set(unlearnt))[:NAMED])}{', ...' if len(set(unlearnt)) > NAMED else ''}"
        )
    if unlabelled:
        reasons.append(f"{unlabelled} samples show no single image with one name")
    if reasons:
        scores["left_out"] = "; ".join(reasons)
    return Outcome(scores, {})


def labelled(exam: Exam, source: Source) -> Labelled:
    """The first usable images of a source with one label each: the name with them, or the answer."""
    images: list[Picture] = []
    names: list[str] = []
    unlabelled, most = 0, exam.sizes.labelled_pictures
    for index in range(len(source)):
        for sample in source[index]:
            images_read = pictures_read(sample)
            labels = sample.truth.get("labels", (expected(sample),))
            if len(images_read) != 1 or len(labels) != 1 or not labels[0]:
                unlabelled += 1
            elif exam.usable(source, sample.name, sample):
                images.append(images_read[0])
                names.append(labels[0])
        if len(names) >= most:
            break
    return Labelled(images[:most], names[:most], unlabelled)


@torch.inference_mode()
def features(model: Model, encoder: Encoder, images: Sequence[Picture]) -> Features:
    """The mean of the features of each picture's first view."""
    contract, pooled = model.contract, []
    for start in range(0, len(images), TOGETHER):
        pixels = torch.stack([_view(contract, image) for image in images[start : start + TOGETHER]])
        grid = encoder(fitting(pixels.to(model.device), encoder))
        pooled.append(reduce(grid, "n gh gw c -> n c", "mean").float().cpu())
    return torch.cat(pooled)


def untrained(model: Model, seed: int) -> Encoder | None:
    """The same encoder with weights as they are drawn; None for one without weights."""
    assert model.encoder is not None
    if not any(True for _ in model.encoder.parameters()):
        return None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        spec = model.spec["encoder"] | model.encoder.standalone()
        encoder = parts.build("encoder", spec)
    assert isinstance(encoder, nn.Module)
    return encoder.to(model.device).eval()  # type: ignore[return-value]


def standardised(learnt: Features, other: Features) -> tuple[Features, Features]:
    """Both with the mean and the deviation of each channel of the first taken out."""
    mean, deviation = learnt.mean(dim=0), learnt.std(dim=0).clamp(min=1e-6)
    return (learnt - mean) / deviation, (other - mean) / deviation


def _view(contract: Contract, image: Picture) -> Tensor:
    return cut(image.open(), contract.read_views(image.size, f"image {image.key}")[0][0])
