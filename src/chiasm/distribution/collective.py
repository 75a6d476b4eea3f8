"""Tensors gathered and summed over all processes of a run; with one process, its own."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


def in_company() -> bool:
    """Whether there are other processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def over_all_ranks(tensor: Tensor) -> Tensor:
    """The sum of what all ranks hold, in place."""
    if in_company():
        distributed.all_reduce(tensor)
    return tensor


def of_first_rank(tensor: Tensor) -> Tensor:
    """What rank 0 holds, on every rank."""
    if in_company():
        tensor = tensor.contiguous()
        distributed.broadcast(tensor, 0)
    return tensor


def of_all_ranks(rows: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
    """The rows that all ranks hold, be it none, on every rank."""
    if not in_company():
        return rows
    counts = [
        torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(distributed.get_world_size())
    ]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), rows.shape[1])])
    gathered = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(gathered, padded)
    return torch.cat([each[: int(count)] for each, count in zip(gathered, counts, strict=True)])


def gathered(rows: Float[Tensor, "m c"]) -> tuple[Float[Tensor, "n c"], int]:
    """The rows of all ranks, of which each has as many, and where one's own begin; gradients of all come home."""
    if not in_company():
        return rows, 0
    return _Gathered.apply(rows), distributed.get_rank() * len(rows)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        return of_all_ranks(rows.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        summed = over_all_ranks(upstream.contiguous().clone())
        first = distributed.get_rank() * ctx.count
        return summed[first : first + ctx.count]
