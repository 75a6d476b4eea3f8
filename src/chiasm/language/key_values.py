"""Keys and values of layers that are not transformers'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


@dataclass
class KeyValues:
    """Keys and values of each layer, over all positions so far.

    They stand in memory that grows by doubling, so that a step does not copy what is there.

    expected: how many positions there will be, where that is known: the memory grows to them at once.
    """

    memory: list[Float[Tensor, "2 b g m e"]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    expected: int = 0

    def extended(
        self, layer: int, key: Float[Tensor, "b g t e"], value: Float[Tensor, "b g t e"]
    ) -> tuple[Float[Tensor, "b g s e"], Float[Tensor, "b g s e"]]:
        """The layer's keys and values with those of the new positions behind them."""
        if layer == len(self.memory):
            self.memory.append(key.new_empty(2, *key.shape[:2], 0, key.shape[3]))
            self.lengths.append(0)
        old, begin = self.memory[layer], self.lengths[layer]
        end = begin + key.shape[2]
        if end > old.shape[3]:
            room = self.expected if end <= self.expected else max(end, 2 * old.shape[3])
            self.memory[layer] = key.new_empty(2, *key.shape[:2], room, key.shape[3])
            self.memory[layer][..., :begin, :] = old[..., :begin, :]
        memory = self.memory[layer]
        memory[0, :, :, begin:end], memory[1, :, :, begin:end] = key, value
        self.lengths[layer] = end
        return memory[0, :, :, :end], memory[1, :, :, :end]

    def crop(self, count: int) -> None:
        """Forget the last `-count` positions."""
        self.lengths = [length + count for length in self.lengths]

    def joined(self, others: Sequence[Self]) -> Self:
        """One cache of this one's rows and, behind them, those of others; shorter ones are padded in front.

        All have read something; see `Language.join`.
        """
        memory, lengths = [], []
        for layers in zip(*(each.filled for each in (self, *others)), strict=True):
            memory.append(stacked(layers, axis=1))
            lengths.append(memory[-1].shape[3])
        return replace(self, memory=memory, lengths=lengths, expected=0)

    def selected(self, rows: Int[Tensor, " r"], columns: slice | Int[Tensor, " s"]) -> Self:
        """A cache of some positions of some rows."""
        memory = [layer[..., columns, :][:, rows] for layer in self.filled]
        return replace(self, memory=memory, lengths=[layer.shape[3] for layer in memory], expected=0)

    @property
    def filled(self) -> list[Float[Tensor, "2 b g s e"]]:
        """The part of each layer's memory that is in use."""
        return [memory[..., :length, :] for memory, length in zip(self.memory, self.lengths, strict=True)]


def stacked(parts: Sequence[Float[Tensor, "*b s e"]], axis: int) -> Float[Tensor, "*b t e"]:
    """Keys or values joined along the axis of their rows; shorter ones have zeros in front."""
    longest = max(part.shape[-2] for part in parts)
    return torch.cat([functional.pad(part, (0, 0, longest - part.shape[-2], 0)) for part in parts], axis)
