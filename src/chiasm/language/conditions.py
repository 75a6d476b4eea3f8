"""What steers a transformer with adaptive norms: at each position, the mean of its document's words so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chiasm.language.key_values import KeyValues


@dataclass(frozen=True, eq=False)
class WordConditions:
    """A few conditions a row, and which of them holds at each position (index None: the only one, everywhere).

    counts: how many words each is the mean of.
    """

    means: Float[Tensor, "b s d"]
    counts: Int[Tensor, "b s"]
    index: Int[Tensor, "b t"] | None

    def at(self, values: Tensor) -> Tensor:
        """`b s ...` to `b t ...`, or to `b 1 ...`, which stands for all positions."""
        if self.index is None:
            return values
        rows = torch.arange(len(values), device=values.device)[:, None]
        return values[rows, self.index]

    def spread(self, parts: Float[Tensor, "b s n d"]) -> tuple[Tensor, ...]:
        return self.at(parts).unbind(2)


@dataclass
class ConditionedCache(KeyValues):
    """Keys and values of each layer, and what the words so far come to.

    steering: of every norm, made once for all positions behind the last word.
    """

    sums: Float[Tensor, "b d"] | None = None
    counts: Int[Tensor, " b"] | None = None
    steering: list[tuple[Tensor, ...]] = field(default_factory=list)

    def joined(self, others: Sequence[Self]) -> Self:
        sums = torch.cat([each.totals[0] for each in (self, *others)])
        counts = torch.cat([each.totals[1] for each in (self, *others)])
        return replace(super().joined(others), sums=sums, counts=counts, steering=[])

    def selected(self, rows: Int[Tensor, " r"], columns: slice | Int[Tensor, " s"]) -> Self:
        sums, counts = self.totals
        return replace(super().selected(rows, columns), sums=sums[rows], counts=counts[rows], steering=[])

    @property
    def totals(self) -> tuple[Float[Tensor, "b d"], Int[Tensor, " b"]]:
        """Sums and counts, of a cache that something has been read into."""
        assert self.sums is not None
        assert self.counts is not None
        return self.sums, self.counts


def conditions(
    embeddings: Float[Tensor, "b t d"],
    words: Bool[Tensor, "b t"],
    documents: Int[Tensor, "b t"],
    cache: ConditionedCache | None,
) -> WordConditions:
    """The conditions of these positions; the first of each row is that of the words before them (none: zeros)."""
    rows, _, width = embeddings.shape
    first = cache is None or cache.sums is None
    sums = embeddings.new_zeros(rows, width, dtype=torch.float32) if first else cache.sums  # type: ignore[union-attr]
    before = words.new_zeros(rows, dtype=torch.long) if first else cache.counts  # type: ignore[union-attr]
    assert sums is not None
    assert before is not None
    if cache is not None and first:
        cache.sums, cache.counts = sums, before
    if not bool(words.any()):
        return WordConditions(_means(sums, before)[:, None].to(embeddings.dtype), before[:, None], None)
    place = words.cumsum(1)
    most = int(place[:, -1].max())
    order = torch.argsort(~words, dim=1, stable=True)[:, :most]
    real = torch.arange(most, device=words.device) < place[:, -1:]
    of = torch.where(real, documents.gather(1, order), -1)
    seen = (of[:, :, None] == of[:, None]).tril() & real[:, None]
    with torch.autocast(embeddings.device.type, enabled=False):
        sorted_words = embeddings.float().gather(1, order[..., None].expand(-1, -1, width))
        totals = seen.float() @ sorted_words + sums[:, None]
    counts = seen.sum(2) + before[:, None]
    if cache is not None:
        last = (place[:, -1] - 1).clamp(min=0)[:, None]
        some = real[:, :1]
        cache.sums = torch.where(some, totals.gather(1, last[..., None].expand(-1, -1, width))[:, 0], sums)
        cache.counts = torch.where(some[:, 0], counts.gather(1, last)[:, 0], before)
        cache.steering = []
    mine = of.gather(1, (place - 1).clamp(min=0)) == documents  # a document may begin with a picture
    totals, counts = torch.cat([sums[:, None], totals], 1), torch.cat([before[:, None], counts], 1)
    return WordConditions(_means(totals, counts).to(embeddings.dtype), counts, torch.where(mine, place, 0))


def _means(sums: Tensor, counts: Tensor) -> Any:
    return sums / counts.clamp(min=1)[..., None]
