"""The layers of an encoder-decoder language model: T5's, with normalised queries and keys and rotary positions.

Which positions an encoder reads and which a decoder writes, and how they attend, is a `DecoderMemory` (see
`chiasm.language.encoder_decoder_memory`); the layers hold the weights.
"""

from __future__ import annotations

from typing import Protocol

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.language.llama_block import Rotary, turned
from chiasm.nn.activations import Activation
from chiasm.nn.activations import activation as build_activation
from chiasm.sequence.attention import attend
from chiasm.sequence.layout import Layout


class DecoderMemory(Protocol):
    """What the positions of a decoder attend to: in each layer first `extend`, then the two kinds of attention."""

    def extend(
        self,
        layer: int,
        key: Float[Tensor, "b h u e"],
        value: Float[Tensor, "b h u e"],
        crosses: TurnedAttention | None,
    ) -> None:
        """Note the keys and values of a layer's own attention.

        crosses: the layer's attention to what was encoded, whose keys and values are noted beside them.
        """

    def attend_written(
        self, attention: TurnedAttention, query: Float[Tensor, "b h u e"]
    ) -> Float[Tensor, "b u h e"]:
        """To what the decoder has read of the same document, these positions included."""

    def attend_encoded(self, query: Float[Tensor, "b h u e"]) -> Float[Tensor, "b u h e"]:
        """To what the encoder has made of the same document."""


class TurnedAttention(nn.Module):
    """Projections of attention without biases; queries and keys of each head are normalised before they turn."""

    def __init__(self, width: int, heads: int, normalised: bool, epsilon: float):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        for each in (self.query, self.key, self.value, self.out):
            nn.init.normal_(each.weight, std=width**-0.5)
        head_width = width // heads
        self.query_norm = nn.RMSNorm(head_width, epsilon) if normalised else nn.Identity()
        self.key_norm = nn.RMSNorm(head_width, epsilon) if normalised else nn.Identity()

    def queries(self, x: Float[Tensor, "b t d"], rotary: Rotary) -> Float[Tensor, "b h t e"]:
        return self._turned(self.query_norm(self._heads(self.query(x))), rotary)

    def keys(self, x: Float[Tensor, "b t d"], rotary: Rotary) -> Float[Tensor, "b h t e"]:
        return self._turned(self.key_norm(self._heads(self.key(x))), rotary)

    def values(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t e"]:
        return self._heads(self.value(x)).transpose(1, 2)

    def merged(self, answer: Float[Tensor, "b t h e"]) -> Float[Tensor, "b t d"]:
        return self.out(rearrange(answer, "b t h e -> b t (h e)"))

    def _heads(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t h e"]:
        return rearrange(x, "b t (h e) -> b t h e", h=self.heads)

    @staticmethod
    def _turned(x: Float[Tensor, "b t h e"], rotary: Rotary) -> Float[Tensor, "b h t e"]:
        return turned(x, rotary).to(x.dtype).transpose(1, 2)


class GatedNetwork(nn.Module):
    """Linear layers without biases.

    gated: what the activation lets through is multiplied by a second projection.
    """

    def __init__(self, width: int, hidden: int, activation: Activation, gated: bool):
        super().__init__()
        self.activation = build_activation(activation)
        self.first = nn.Linear(width, hidden, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False) if gated else None
        self.second = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        inner = self.activation(self.first(x))
        return self.second(inner if self.gate is None else inner * self.gate(x))


class EncoderLayer(nn.Module):
    """TurnedAttention and feed-forward network, each behind a norm."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: Activation,
        gated: bool,
        normalised: bool,
        epsilon: float,
    ):
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, epsilon)
        self.attention = TurnedAttention(width, heads, normalised, epsilon)
        self.network_norm = nn.RMSNorm(width, epsilon)
        self.network = GatedNetwork(width, hidden, activation, gated)

    def forward(self, x: Float[Tensor, "b s d"], rotary: Rotary, layout: Layout) -> Float[Tensor, "b s d"]:
        normed, own = self.attention_norm(x), self.attention
        query, key, value = own.queries(normed, rotary), own.keys(normed, rotary), own.values(normed)
        answer, _ = attend(own, query, key, value, None, layout=layout)
        x = x + own.merged(answer)
        return x + self.network(self.network_norm(x))


class DecoderLayer(nn.Module):
    """TurnedAttention to what is written, to what was encoded, and a feed-forward network, each behind a norm.

    crosses: it attends to what was encoded.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: Activation,
        gated: bool,
        normalised: bool,
        epsilon: float,
        crosses: bool,
    ):
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, epsilon)
        self.attention = TurnedAttention(width, heads, normalised, epsilon)
        self.cross_norm = nn.RMSNorm(width, epsilon) if crosses else None
        self.cross_attention = TurnedAttention(width, heads, normalised, epsilon) if crosses else None
        self.network_norm = nn.RMSNorm(width, epsilon)
        self.network = GatedNetwork(width, hidden, activation, gated)

    def forward(
        self, x: Float[Tensor, "b u d"], rotary: Rotary, memory: DecoderMemory, index: int
    ) -> Float[Tensor, "b u d"]:
        """index: which layer this is."""
        normed, own = self.attention_norm(x), self.attention
        memory.extend(index, own.keys(normed, rotary), own.values(normed), self.cross_attention)
        x = x + own.merged(memory.attend_written(own, own.queries(normed, rotary)))
        if self.cross_attention is not None and self.cross_norm is not None:
            query = self.cross_attention.queries(self.cross_norm(x), rotary)
            x = x + self.cross_attention.merged(memory.attend_encoded(query))
        return x + self.network(self.network_norm(x))


def rotations(angles: Float[Tensor, "b t p"]) -> Rotary:
    """Turns of the pairs of neighbouring channels by these angles."""
    return torch.polar(torch.ones_like(angles), angles)
