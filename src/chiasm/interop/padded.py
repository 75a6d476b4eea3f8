"""An original's padding, whose positions attend to real ones, not the reverse; no document of ours needs it."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from chiasm.attention import Layout


def padded_layout(allowed: Bool[Tensor, "b t t"], real: Bool[Tensor, "b t"]) -> Layout:
    """A layout whose rule is written out: for replays alone. `real` is False where a row is padded."""
    every = torch.ones_like(real)
    layout = Layout(torch.where(real, 0, -1), every, every, queries=real.shape[1])
    layout.__dict__["dense_mask"] = allowed[:, None]  # a cached property, so that it is not computed
    return layout


def causal_with_padding(real: Bool[Tensor, "b t"]) -> Layout:
    """Every position attends to the real ones up to itself."""
    length = real.shape[1]
    before = torch.ones(length, length, dtype=torch.bool).tril()
    return padded_layout(before & real[:, None], real)
