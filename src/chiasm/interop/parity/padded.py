"""An original's padding, whose positions attend to real ones, not the reverse; no document of ours needs it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from chiasm.sequence.layout import Layout


def padded_layout(allowed: Bool[Tensor, "b t t"], real: Bool[Tensor, "b t"], **columns: Any) -> Layout:
    """A layout whose rule is written out: for replays alone. `real` is False where a row is padded."""
    every = torch.ones_like(real)
    standard: dict[str, Any] = {"documents": torch.where(real, 0, -1), "opens": every, "exposed": every}
    standard["positions"] = torch.arange(real.shape[1]).expand_as(real)
    layout = Layout(**(standard | columns), queries=real.shape[1])
    layout.__dict__["dense_mask"] = allowed[:, None]  # a cached property, so that it is not computed
    return layout


def causal_with_padding(real: Bool[Tensor, "b t"], **columns: Any) -> Layout:
    """Every position attends to the real ones up to itself."""
    length = real.shape[1]
    before = torch.ones(length, length, dtype=torch.bool).tril()
    return padded_layout(before & real[:, None], real, **columns)
