"""Monkey's low-rank updates of an encoder, a set for each window of an image (arXiv 2311.06607)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class WindowUpdate(nn.Module):
    """What is added to a linear layer at the patches of each window: the n-th set at the n-th window's.

    One set alone serves all windows. Nothing is added at first. The original's dropout is left out, so that
    features are the same in training.
    """

    def __init__(self, sets: int, in_width: int, out_width: int, rank: int):
        super().__init__()
        bound = in_width**-0.5
        self.down = nn.Parameter(torch.empty(sets, rank, in_width).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(sets, out_width, rank))
        self.scale = nn.Parameter(torch.ones(sets))

    def forward(self, x: Float[Tensor, "n k s c"]) -> Float[Tensor, "n k s d"]:
        down, up, scale = (each[: x.shape[1]] for each in (self.down, self.up, self.scale))
        return x @ down.mT @ up.mT * scale[:, None, None]


class WindowUpdates(nn.Module):
    """Those of one block; see `chiasm.encoders.blockwise.BlockUpdates`.

    sets: one for all windows, or as many as an image has windows. rank: of the updates of attention.
    """

    def __init__(self, sets: int, width: int, rank: int, mlp_rank: int):
        super().__init__()
        self.qkv = WindowUpdate(sets, width, 3 * width, rank)
        self.out = WindowUpdate(sets, width, width, rank)
        self.mlp = WindowUpdate(sets, width, width, mlp_rank)
