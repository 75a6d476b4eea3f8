"""Packed documents of like length gathered from all rows, so that one call of a kernel computes them together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chiasm.sequence.rule import allowed, with_themselves


@dataclass(frozen=True, eq=False)
class Group:
    """n documents of at most m positions.

    index: flat positions of each document, its end padded with its own first position.
    real: False at that padding.
    mask: None when all are causal (padding stands at the end, where no causal query looks).
    """

    index: Int[Tensor, "n m"]
    real: Bool[Tensor, "n m"]
    lengths: Int[Tensor, " n"]
    mask: Bool[Tensor, "n 1 m m"] | None


@dataclass(frozen=True, eq=False)
class Moves:
    """index: which row comes to each place; -1 = none."""

    index: Int[Tensor, " m"]

    @cached_property
    def _taken(self) -> Int[Tensor, " m"]:
        return self.index.clamp(min=0)

    @cached_property
    def _empty(self) -> Int[Tensor, " e"]:
        return (self.index < 0).nonzero()[:, 0]

    def rows(self, table: Float[Tensor, "n h e"]) -> Float[Tensor, "m h e"]:
        return table.index_select(0, self._taken).index_fill_(0, self._empty, 0)


def grouped(
    documents: Int[Tensor, "b t"], opens: Bool[Tensor, "b t"], exposed: Bool[Tensor, "b t"]
) -> list[Group]:
    """The documents of all rows, those of like length and rule together."""
    rows, length = documents.shape
    # A row of `length` positions holds at most as many documents: so each has an id of its own among all rows.
    row_offset = torch.arange(rows, device=documents.device)[:, None] * length
    ids = torch.where(documents >= 0, documents + row_offset, -1).flatten()
    order = torch.argsort(ids, stable=True)
    order = order[int((ids < 0).sum()) :]
    _, counts = torch.unique_consecutive(ids[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    causal_position = (opens & exposed).flatten()
    buckets: dict[tuple[int, bool], list[int]] = {}
    sums = F.pad(causal_position[order].long().cumsum(0), (1, 0))
    causal = (sums[starts + counts] - sums[starts] == counts).tolist()
    for document, (count, is_causal) in enumerate(zip(counts.tolist(), causal, strict=True)):
        buckets.setdefault((_bucket(count), is_causal), []).append(document)
    groups = []
    for (_, is_causal), members in sorted(buckets.items()):
        chosen = torch.tensor(members, device=order.device)
        lengths = counts[chosen]
        steps = torch.arange(int(lengths.max()), device=order.device)
        real = steps < lengths[:, None]
        index = order[starts[chosen][:, None] + torch.where(real, steps, 0)]
        mask = None if is_causal else _mask(opens.flatten()[index], exposed.flatten()[index], real)
        groups.append(Group(index, real, lengths, mask))
    return groups


def _bucket(length: int) -> int:
    """Lengths that share a call: within an eighth of each other, so that little of it is padding."""
    step = 1 << max(2, length.bit_length() - 4)
    return -(-length // step) * step


def _mask(
    opens: Bool[Tensor, "n m"], exposed: Bool[Tensor, "n m"], real: Bool[Tensor, "n m"]
) -> Bool[Tensor, "n 1 m m"]:
    documents = (~real).long()  # the padding is a document of its own, whose answer nobody reads
    return with_themselves(allowed(documents, opens.long().cumsum(1), exposed))
