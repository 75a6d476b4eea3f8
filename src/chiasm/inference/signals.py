"""Answers that are signals of a modality beside text and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from chiasm.data.documents import document
from chiasm.data.sample import Message, Sample, Signal
from chiasm.errors import ChiasmError
from chiasm.inference.kernels import inference_mode
from chiasm.inference.reading import CodeReader, in_rows
from chiasm.model.signals import modality_of, signal_states
from chiasm.nn.generators import Generators

if TYPE_CHECKING:
    from chiasm.model import Model


class _AskedSignal(Signal):
    """A signal that a model shall make."""

    def __init__(self, modality: str, shape: tuple[int, ...]):
        self.modality, self.shape, self.key = modality, shape, "unknown"

    def open(self) -> Float[np.ndarray, ...]:
        return np.zeros(self.shape, dtype=np.float32)


@inference_mode
def synthesise(
    model: Model, modality: str, samples: Sequence[Sample], seeds: Sequence[int]
) -> list[Float[np.ndarray, ...]]:
    """The signal with which the model answers each sample, which ends with what is asked, in one pass.

    Raises ChiasmError for a modality that the model has not.
    """
    contract = model.contract
    if modality not in contract.signals:
        known = ", ".join(contract.signals) or "none"
        raise ChiasmError.of("modality", f"this model has no modality {modality!r}; it has: {known}")
    answer = Message("assistant", (_AskedSignal(modality, contract.signals[modality].shape),))
    asked = [Sample(each.name, (*each.messages, answer)) for each in samples]
    documents = [document(contract, each) for each in asked]
    embeddings, layout, _ = model.embed(in_rows(model, documents, CodeReader(model)))
    hidden = model.language(embeddings, layout)
    starts = [row * hidden.shape[1] + each.signals[-1].start for row, each in enumerate(documents)]
    part = modality_of(model.modalities, modality)
    states = signal_states(part, hidden, torch.tensor(starts, device=hidden.device))
    return list(part.draw(states, Generators(seeds)).float().cpu().numpy())
