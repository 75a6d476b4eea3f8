"""Drawing one value after another, for orders in which each is predicted from all before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.heads.drawing import Ask, DrawingState, Writing
from chiasm.heads.spans import doubled


def one_by_one(
    start: Float[Tensor, "r d"],
    values: Int[Tensor, "n m"],
    guidance: float,
    progress: DrawingState | None,
    *,
    embed: Callable[[Int[Tensor, "n m"], int], Float[Tensor, "n m d"]],
    draw: Callable[[Float[Tensor, "r d"], Int[Tensor, "n m"]], Int[Tensor, " n"]],
    whole: Callable[[Int[Tensor, "n m"]], bool],
) -> Writing:
    """Complete images whose first m values are known and not yet read; the last that is drawn is not read.

    embed: what stands at values, from the place of the first of them on. draw: the next value of each image.
    whole: whether all images are.
    """
    known, hidden = 0, start
    while not whole(values):
        if values.shape[1] > known:
            hidden = (yield Ask(doubled(embed(values[:, known:], known), guidance)))[:, -1]
            known = values.shape[1]
        values = torch.cat([values, draw(hidden, values)[:, None]], 1)
        if progress is not None:
            progress.note(values, values.shape[1])
    return values
