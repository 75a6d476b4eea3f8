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
from chiasm.data.documents import Contract
from chiasm.devices import fitting
from chiasm.encoders import Encoder
from chiasm.evaluation.statistics import clustered, commonest
from chiasm.evaluation.subject import ModelSubject, expected, pictures_read
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome
from chiasm.model import Model
from chiasm.views.cut import cut

NAMED = 5  # names of those that are left out
TOGETHER = 64  # pictures that go through an encoder at once

Features = Float[Tensor, "n c"]
Classes = Int[Tensor, " n"]
Classifier = Callable[[Features, Classes, Features, int], Classes]


@dataclass(frozen=True)
class Labelled:
    """Pictures of one thing each, and its name."""

    pictures: Sequence[Picture]
    names: Sequence[str]


def probe(exam: Exam, classify: Classifier) -> Outcome:
    """Scores of a classifier on features of the encoder as it is, and of the same encoder untrained.

    classify: from features and classes that are learnt from, the classes of other features.
    Held-out pictures with a name that nothing is learnt of are left out, and counted as `unlearnt`.
    """
    if exam.labelled is None:
        raise NotApplicable("the recipe names no labelled pictures; set evaluation.labelled to two sources")
    if not isinstance(exam.subject, ModelSubject) or exam.subject.model.encoder is None:
        raise NotApplicable("the model has no encoder")
    model = exam.subject.model
    learnt, held_out = (labelled(exam, source) for source in exam.labelled)
    known = sorted(set(learnt.names))
    unlearnt = [name for name in held_out.names if name not in known]
    kept = [i for i, name in enumerate(held_out.names) if name in known]
    if len(known) < 2 or not kept:
        raise NotApplicable("the labelled pictures have fewer than two names in common")
    held_out = Labelled([held_out.pictures[i] for i in kept], [held_out.names[i] for i in kept])
    answers = torch.tensor([known.index(name) for name in held_out.names])

    def scored(encoder: Encoder) -> list[float]:
        seen, asked = (features(model, encoder, each.pictures) for each in (learnt, held_out))
        classes = torch.tensor([known.index(name) for name in learnt.names])
        return [float(right) for right in classify(seen, classes, asked, len(known)) == answers]

    assert model.encoder is not None
    right = scored(model.encoder)
    estimate = clustered(right, range(len(right)))
    told: dict[str, Any] = {"score": estimate.value, "ci": estimate.interval}
    fresh = untrained(model, exam.seed)
    if fresh is not None:
        control = clustered(scored(fresh), range(len(right)))
        told |= {"untrained": control.value, "untrained_ci": control.interval}
    told |= {
        "chance": 1 / len(known),
        "commonest": commonest(held_out.names),
        "classes": len(known),
        "learnt_from": len(learnt.names),
        "n": estimate.n,
        "unlearnt": len(unlearnt),
        "smallest_effect": estimate.smallest_effect,
    }
    if unlearnt:
        told["left_out"] = (
            f"{len(unlearnt)} held-out pictures are left out, whose names are not among the learnt ones: "
            f"{', '.join(sorted(set(unlearnt))[:NAMED])}{', ...' if len(set(unlearnt)) > NAMED else ''}"
        )
    return Outcome(told, {})


def labelled(exam: Exam, source: Source) -> Labelled:
    """The first usable pictures of a source that stand for one label: the name with them, or the answer."""
    pictures, names, most = [], [], exam.sizes.labelled_pictures
    for index in range(len(source)):
        for sample in source[index]:
            read = pictures_read(sample)
            of = sample.truth.get("labels", (expected(sample),))
            if len(read) == 1 and len(of) == 1 and of[0] and exam.usable(source, sample.name, sample):
                pictures.append(read[0])
                names.append(of[0])
        if len(names) >= most:
            break
    return Labelled(pictures[:most], names[:most])


@torch.inference_mode()
def features(model: Model, encoder: Encoder, pictures: Sequence[Picture]) -> Features:
    """The mean of the features of each picture's first view."""
    contract, found = model.contract, []
    for start in range(0, len(pictures), TOGETHER):
        pixels = torch.stack([_view(contract, picture) for picture in pictures[start : start + TOGETHER]])
        grid = encoder(fitting(pixels.to(model.device), encoder))
        found.append(reduce(grid, "n gh gw c -> n c", "mean").float().cpu())
    return torch.cat(found)


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


def standardised(learnt: Features, asked: Features) -> tuple[Features, Features]:
    """Both with the mean and the deviation of each channel of the first taken out."""
    mean, deviation = learnt.mean(dim=0), learnt.std(dim=0).clamp(min=1e-6)
    return (learnt - mean) / deviation, (asked - mean) / deviation


def _view(contract: Contract, picture: Picture) -> Tensor:
    return cut(picture.open(), contract.read_views(picture.size, f"picture {picture.key}")[0][0])
