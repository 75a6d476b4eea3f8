"""Answers that are signals of a modality beside text and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from chiasm.data.documents import document
from chiasm.data.sample import Sample
from chiasm.errors import TOO_LONG, ChiasmError, DataError
from chiasm.inference.engine import Engine
from chiasm.inference.requests import Extend, Read, Request, Steps
from chiasm.model.signals import modality_of
from chiasm.nn.generators import Generators
from chiasm.sequence import Kind

if TYPE_CHECKING:
    from chiasm.model import Model


class Synthesis(Request):
    """The signal with which a model answers a sample, which ends with what is asked; its result are the numbers.

    seed: of what is drawn at random, if anything is.
    Raises ChiasmError for a modality that the model has not, and DataError for a sample that is too long, or ends
    with an answer.
    """

    def __init__(self, model: Model, modality: str, sample: Sample, seed: int):
        super().__init__()
        check_modality(model, modality)
        if sample.messages[-1].role == "assistant":
            raise DataError(
                f"{sample.name} ends with an answer; it must end with what a {modality} shall answer", "turns"
            )
        self.modality, self.seed = modality_of(model.modalities, modality), seed
        self.document = document(model.contract, sample, prompt=True)
        if self.positions > model.contract.context:
            raise DataError(
                f"{sample.name} and a {modality} take {self.positions:,} positions, but the context has "
                f"{model.contract.context:,}",
                TOO_LONG,
            )

    @property
    def rows(self) -> int:
        return 1

    @property
    def positions(self) -> int:
        return len(self.document) + self.modality.positions

    def steps(self) -> Steps:
        yield Read([self.document])
        count = self.modality.positions
        queries = self.modality.queries()[None]
        hidden = yield Extend(queries, (Kind.WRITTEN,) * count, (True,) * count, (True,) * count)
        return self.modality.draw(hidden, Generators([self.seed]))[0].float().cpu().numpy()


def synthesise(
    model: Model, modality: str, samples: Sequence[Sample], seeds: Sequence[int]
) -> list[Float[np.ndarray, ...]]:
    """The signal with which the model answers each sample. Errors are those of `Synthesis`."""
    engine = Engine(model)
    requests = [Synthesis(model, modality, *each) for each in zip(samples, seeds, strict=True)]
    return [handle.result() for handle in [engine.submit(each) for each in requests]]


def check_modality(model: Model, name: str) -> None:
    """Raise ChiasmError for a modality that the model has not."""
    if name not in model.contract.signals:
        known = ", ".join(model.contract.signals) or "none"
        raise ChiasmError.of("modality", f"this model has no modality {name!r}; it has: {known}")
