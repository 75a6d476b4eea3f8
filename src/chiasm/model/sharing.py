"""Weights that several models have alike are held once: a base, and runs that have learnt small updates of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from chiasm.model import Model


def share_weights(model: Model, others: Sequence[Model]) -> int:
    """Have a model use the tensors of others wherever its own are equal, bit for bit.

    For models that are only used: what changes a tensor of one changes it for all.
    Returns how many bytes the model has given back.
    """
    theirs = [dict(_tensors(other)) for other in others]
    saved = 0
    for name, tensor in _tensors(model):
        alike = next((each[name] for each in theirs if name in each and _are_equal(tensor, each[name])), None)
        if alike is not None and alike.data_ptr() != tensor.data_ptr():
            saved += tensor.numel() * tensor.element_size()
            tensor.data = alike.data
    return saved


def _tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _are_equal(one: Tensor, other: Tensor) -> bool:
    alike = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
    return alike and torch.equal(one, other)
