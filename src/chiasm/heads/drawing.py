"""The protocol of drawing: an image head asks for hidden states, whoever holds the language model sends them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeAlias

from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from chiasm.nn.generators import Generators


class Ask(NamedTuple):
    """The embeddings of the next s positions of a drawing, whose hidden states it is sent.

    keep: without it the positions are forgotten once they are read, and the next ask stands in their place.
    """

    embeddings: Float[Tensor, "r s d"]
    keep: bool = True


class Retained(NamedTuple):
    """What stays of an image that is edited.

    values: of the whole image, in raster order. redrawn: the places whose values are drawn anew, on the CPU.
    """

    values: Shaped[Tensor, "k ..."]
    redrawn: Bool[Tensor, " k"]


Writing: TypeAlias = Generator[Ask, Float[Tensor, "r s d"], Tensor]  # returns the target


class DrawingState:
    """How far images have got, so that drawing can go on after whatever stopped it.

    values: those drawn so far, in the form of their head; None = none. steps: how many draws made them.
    retained: what of them is not drawn, but stays as it was; None = nothing.
    """

    retained: Retained | None = None

    def __init__(self, generators: Generators):
        self.values: Tensor | None = None
        self.steps = 0
        self._generators, self._state = generators, generators.state()

    def note(self, values: Tensor, steps: int) -> None:
        self.values, self.steps, self._state = values, steps, self._generators.state()

    def restored(self) -> Generators:
        """The generators as they stood behind the values."""
        self._generators.restore(self._state)
        return self._generators


def finish(writing: Writing, read: Callable[[Ask], Float[Tensor, "r s d"]]) -> Tensor:
    """The target of a drawing whose asks `read` answers."""
    try:
        ask = next(writing)
        while True:
            ask = writing.send(read(ask))
    except StopIteration as end:
        return end.value
