"""What models say of samples: how likely their answers are, which way they pull, how unlike others they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chiasm.data.documents import document, writes_picture
from chiasm.data.sample import Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.inference.reading import in_rows
from chiasm.model import Model
from chiasm.sequence import PADDING, PackedBatch

ROWS = 8  # samples of one pass


def check_sample(model: Model, sample: Sample, length: int) -> None:
    """Raise DataError for a sample that has more than `length` tokens, or whose answer is not in words."""
    if sample.masks is not None or writes_picture(sample):
        raise DataError(
            f"{sample.name} is answered by an image or by masks; only words can be scored", "no words"
        )
    tokens, most = len(document(model.contract, sample)), min(length, model.contract.context)
    if tokens > most:
        raise DataError(f"{sample.name} has {tokens} tokens, more than {most}", "too long")


@contextmanager
def unchanged(model: Model) -> Iterator[None]:
    """Whatever learns within has its weights, modes and gradients back behind."""
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.load_state_dict(weights)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(learns[name])
            parameter.grad = None
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def features(model: Model, samples: Sequence[Sample]) -> Float[Tensor, "n d"]:
    """The mean hidden state of each sample, question and answer, on the CPU."""
    means = []
    for start in range(0, len(samples), ROWS):
        batch = _batch(model, samples[start : start + ROWS])
        embeddings, layout, _ = model.embed(batch)
        hidden = model.language(embeddings, layout).float()
        within = (batch.documents != PADDING).unsqueeze(-1)
        means.append(((hidden * within).sum(1) / within.sum(1)).cpu())
    return torch.cat(means)


def distances(
    candidates: Float[Tensor, "n d"], base: Float[Tensor, "m d"]
) -> tuple[Float[np.ndarray, " n"], list[int]]:
    """How far each sample is from those chosen before it, and the order in which they are chosen.

    Farthest first: next is always the one whose nearest neighbour, among the base and those chosen, is farthest by
    cosine (0: the same direction, 2: the opposite one). The mean of all is taken from each first, as hidden states
    of one model are all much alike.
    """
    every = torch.cat([candidates, base])
    unit = functional.normalize(every - every.mean(0), dim=-1)
    points, base_points = unit[: len(candidates)], unit[len(candidates) :]
    # With nothing to be far from, every sample is as far as can be.
    distance = 1 - (points @ base_points.T).amax(1) if len(base_points) else torch.full((len(points),), 2.0)
    scores, order = np.zeros(len(points)), []
    for _ in range(len(points)):
        chosen = int(distance.argmax())
        scores[chosen] = max(0.0, float(distance[chosen]))
        order.append(chosen)
        distance = torch.minimum(distance, 1 - points @ points[chosen])
        distance[order] = -torch.inf
    return scores, order


class Gradients:
    """Gradients of the loss of answers in the weights of some slots, without dropout."""

    def __init__(self, model: Model, slots: Iterable[str]):
        model.train_only(slots)
        model.eval()
        self.model = model
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def of(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Of the mean loss of their tokens."""
        for parameter in self.parameters:
            parameter.grad = None
        for start in range(0, len(samples), ROWS):
            loss = self.model.losses(_batch(self.model, samples[start : start + ROWS]))["text"].sum
            if not loss.requires_grad:
                raise ChiasmError("the answers do not depend on the weights of the slots that a trial trains")
            loss.backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in self.parameters]

    def alignment(self, sample: Sample, directions: Sequence[Sequence[Tensor]]) -> float:
        """Mean cosine of a sample's gradient and others: above 0, learning it makes those losses fall."""
        own = self.of([sample])
        size = _dot(own, own).sqrt()
        cosines = [_dot(own, each) / (size * _dot(each, each).sqrt()).clamp(min=1e-30) for each in directions]
        return float(torch.stack(cosines).mean())


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x.float() * y.float()).sum() for x, y in zip(a, b, strict=True)]).sum()


def _batch(model: Model, samples: Sequence[Sample]) -> PackedBatch:
    return in_rows(model, [document(model.contract, sample) for sample in samples])
