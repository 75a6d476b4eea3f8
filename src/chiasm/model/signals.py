"""Signals of modalities beside text and images: into their positions, and hidden states there to their losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.distribution.devices import fitting
from chiasm.modalities import Modality
from chiasm.nn.losses import Loss
from chiasm.sequence import PackedBatch, Signals, fill_from


def with_signals(
    modalities: nn.ModuleDict, embeddings: Float[Tensor, "b t d"], batch: PackedBatch
) -> Float[Tensor, "b t d"]:
    """The embeddings of a batch with its signals in their places: those read, and the queries of those written."""
    for name, signals in batch.signals.items():
        modality = modality_of(modalities, name)
        values = modality.embed(fitting(signals.values, modality))
        embeddings = fill_from(embeddings, signals.starts, values)
    for name, signals in batch.written.signals.items():
        queries = modality_of(modalities, name).queries().expand(len(signals.starts), -1, -1)
        embeddings = fill_from(embeddings, signals.starts, queries)
    return embeddings


def signal_states(
    modality: Modality, hidden: Float[Tensor, "b t d"], starts: Int[Tensor, " n"]
) -> Float[Tensor, "n k d"]:
    """The hidden states at the queries of signals. starts: flat position of each's first place."""
    places = starts[:, None] + torch.arange(modality.positions, device=hidden.device)
    return hidden.flatten(0, 1)[places]


def signal_losses(
    modalities: nn.ModuleDict, hidden: Float[Tensor, "b t d"], written: Mapping[str, Signals]
) -> dict[str, Loss]:
    """The loss of each modality, by its name: one term a signal."""
    losses = {}
    for name, signals in written.items():
        modality = modality_of(modalities, name)
        total = modality.loss(signal_states(modality, hidden, signals.starts), signals.values)
        losses[name] = Loss(total, total.new_tensor(float(len(signals.starts))))
    return losses


def modality_of(modalities: nn.ModuleDict, name: str) -> Modality:
    modality = modalities[name]
    assert isinstance(modality, Modality)
    return modality
