"""Losses of masks, and which proposed mask answers to which target (DETR, arXiv 2005.12872)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.nn.assignment import assign


def resized(masks: Bool[Tensor, "m h w"], size: tuple[int, int]) -> Float[Tensor, "m h2 w2"]:
    """Masks at the size at which they are predicted: the share of each cell that a mask covers."""
    return functional.interpolate(masks[:, None].float(), size, mode="area")[:, 0]


def cross_entropy_each(
    logits: Float[Tensor, "q h w"], targets: Float[Tensor, "q h w"]
) -> Float[Tensor, " q"]:
    """Binary cross entropy of each mask, the mean over its cells."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))


def dice_each(logits: Float[Tensor, "q h w"], targets: Float[Tensor, "q h w"]) -> Float[Tensor, " q"]:
    """1 - the Dice coefficient of each mask, with 1 added to both of its sums."""
    masks = logits.sigmoid()
    return 1 - (2 * (masks * targets).sum((1, 2)) + 1) / (masks.sum((1, 2)) + targets.sum((1, 2)) + 1)


@torch.no_grad()
def matched(
    logits: Float[Tensor, "q h w"],
    targets: Float[Tensor, "m h w"],
    *,
    cross_entropy: float,
    dice: float,
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Pairs of a proposed mask and a target, each at most once, at the least cost in all (the Hungarian method).

    cross_entropy, dice: weights of the two losses in the cost of a pair.
    """
    proposed, wanted = logits.float().flatten(1), targets.float().flatten(1)
    positive, negative = functional.softplus(-proposed), functional.softplus(proposed)
    entropy = (positive @ wanted.T + negative @ (1 - wanted).T) / proposed.shape[1]
    shares = proposed.sigmoid()
    overlap = (2 * shares @ wanted.T + 1) / (shares.sum(1)[:, None] + wanted.sum(1) + 1)
    cost = cross_entropy * entropy + dice * (1 - overlap)
    rows, columns = assign(cost.double().cpu().numpy())
    device = logits.device
    return torch.as_tensor(rows, device=device), torch.as_tensor(columns, device=device)
