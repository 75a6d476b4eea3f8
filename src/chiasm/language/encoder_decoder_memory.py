"""How a decoder attends to what it wrote and to what was encoded: of documents read whole, and behind a cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.language.encoder_decoder import TurnedAttention
from chiasm.language.key_values import KeyValues
from chiasm.language.llama_block import Rotary
from chiasm.sequence.attention import attend
from chiasm.sequence.layout import PADDINGS, Layout
from chiasm.sequence.rule import hiding, with_themselves


@dataclass(frozen=True, eq=False)
class Gathered:
    """Some positions of every row, moved together; those behind them are padding.

    places: where each stood. real: False at padding. length: of a row before.
    """

    places: Int[Tensor, "b s"]
    real: Bool[Tensor, "b s"]
    layout: Layout
    length: int

    @staticmethod
    def of(layout: Layout, chosen: Bool[Tensor, "b t"]) -> Gathered:
        most = int(chosen.sum(1).max())
        places = torch.argsort(~chosen, dim=1, stable=True)[:, :most]
        real = chosen.gather(1, places)
        rows = _rows(places)
        columns = {name: getattr(layout, name)[rows, places] for name in PADDINGS}
        for name in ("documents", "opens", "exposed"):
            columns[name] = torch.where(real, columns[name], torch.full_like(columns[name], PADDINGS[name]))
        inner = replace(layout, **columns, cross_attended=None, queries=None, clear=False)
        return Gathered(places, real, inner, chosen.shape[1])

    def take(self, x: Tensor) -> Tensor:
        """Of `b t ...`, what stands at the positions: `b s ...`."""
        return x[_rows(self.places), self.places]

    def put(self, values: Tensor) -> Tensor:
        """`b s ...` back at their places, `b t ...`, with zeros between them."""
        whole = values.new_zeros(len(values), self.length, *values.shape[2:])
        rows = _rows(self.places).expand_as(self.places)
        return whole.index_put((rows[self.real], self.places[self.real]), values[self.real])


class WholeDocuments:
    """Documents that are read from their beginning: what the encoder made of them is at hand.

    cache: gets the decoder's keys and values, layer by layer: at positions that were encoded those of what the
        encoder made of them, elsewhere those of the decoder's own.
    """

    def __init__(
        self,
        source: Gathered,
        target: Gathered,
        encoded: Float[Tensor, "b s d"],
        rotary: Rotary,
        cache: KeyValues | None,
    ):
        """encoded, rotary: of the positions of `source`."""
        self.source, self.target, self.encoded, self.rotary = source, target, encoded, rotary
        self.cache = cache
        keys, queries = source.layout.documents[:, None], target.layout.documents[:, :, None]
        unseen = (keys != queries) | (keys < 0)
        self.mask = hiding(unseen[:, None], encoded.dtype) if bool(unseen.any()) else None

    def extend(
        self,
        layer: int,
        key: Float[Tensor, "b h u e"],
        value: Float[Tensor, "b h u e"],
        crosses: TurnedAttention | None,
    ) -> None:
        self.written, self.crossed = (key, value), None
        if crosses is not None:
            self.crossed = crosses.keys(self.encoded, self.rotary), crosses.values(self.encoded)
        if self.cache is not None:
            self.cache.extended(layer, *(self._columns(i) for i in range(2)))

    def attend_written(
        self, attention: TurnedAttention, query: Float[Tensor, "b h u e"]
    ) -> Float[Tensor, "b u h e"]:
        answer, _ = attend(attention, query, *self.written, None, layout=self.target.layout)
        return answer

    def attend_encoded(self, query: Float[Tensor, "b h u e"]) -> Float[Tensor, "b u h e"]:
        assert self.crossed is not None
        return functional.scaled_dot_product_attention(query, *self.crossed, attn_mask=self.mask).transpose(
            1, 2
        )

    def _columns(self, which: int) -> Float[Tensor, "b h t e"]:
        """Keys (0) or values (1) at all positions."""
        both = self.target.put(self.written[which].transpose(1, 2))
        if self.crossed is not None:
            both = both + self.source.put(self.crossed[which].transpose(1, 2))
        return both.transpose(1, 2)


class BehindCache:
    """Positions that a decoder reads behind a cache, which `WholeDocuments` began."""

    def __init__(self, layout: Layout, cache: KeyValues):
        self.cache = cache
        encoded = layout.first_block[:, None]
        self.written_mask = with_themselves(layout.allowed & ~encoded)
        keys, queries = layout.documents[:, None], layout.of_queries(layout.documents)[:, :, None]
        self.encoded_mask = ((keys == queries) & encoded | (queries < 0))[:, None]

    def extend(
        self,
        layer: int,
        key: Float[Tensor, "b h u e"],
        value: Float[Tensor, "b h u e"],
        crosses: TurnedAttention | None,
    ) -> None:
        self.keys, self.values = self.cache.extended(layer, key, value)

    def attend_written(
        self, attention: TurnedAttention, query: Float[Tensor, "b h u e"]
    ) -> Float[Tensor, "b u h e"]:
        return self._attend(query, self.written_mask)

    def attend_encoded(self, query: Float[Tensor, "b h u e"]) -> Float[Tensor, "b u h e"]:
        return self._attend(query, self.encoded_mask)

    def _attend(
        self, query: Float[Tensor, "b h u e"], mask: Bool[Tensor, "b 1 u t"]
    ) -> Float[Tensor, "b u h e"]:
        answer = functional.scaled_dot_product_attention(query, self.keys, self.values, attn_mask=mask)
        return answer.transpose(1, 2)


def _rows(places: Int[Tensor, "b s"]) -> Int[Tensor, "b 1"]:
    return torch.arange(len(places), device=places.device)[:, None]
