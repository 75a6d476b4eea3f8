"""Orders in which one value follows another, each predicted from all before it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from chiasm.heads import (
    Alphabet,
    Ask,
    DrawingState,
    HeadContext,
    Order,
    Sampling,
    Span,
    SpanLayout,
    Writing,
    raster,
)
from chiasm.heads.spans import (
    at_cells,
    begun,
    cell_embedding,
    check_target,
    count_images,
    doubled,
    with_retained,
)
from chiasm.nn.generators import Generators


class OneByOne(Order):
    """Next-token prediction, for orders that differ in which values are learnt, drawn, and enough.

    Every value opens an attention block of its own, so values are seen causally, as words are. The marker that
    begins an image predicts the first, unless an order has something of its own for that.
    """

    edits: ClassVar[bool] = True
    alphabet: Alphabet

    def __init__(self, context: HeadContext, alphabet: Alphabet, cells: bool, unconditional: float):
        super().__init__()
        self.space, self.alphabet, self.unconditional = context.space, alphabet, unconditional
        self.cells = cell_embedding(context.space.length, context.width) if cells else None

    @abstractmethod
    def draw(
        self,
        hidden: Float[Tensor, "r d"],
        values: Shaped[Tensor, "n m"],
        sampling: Sampling,
        generators: Generators | None,
    ) -> Shaped[Tensor, " n"]:
        """The value of each image that follows those drawn so far."""

    def is_whole(self, values: Shaped[Tensor, "n m"]) -> bool:
        """Whether nothing is left to draw."""
        return values.shape[1] == self.space.length

    def target_of(self, values: Shaped[Tensor, "n m"]) -> Shaped[Tensor, "n k"]:
        """The target of images whose values are all drawn."""
        return values

    def standing(self, values: Shaped[Tensor, "n m"]) -> Shaped[Tensor, "n k"]:
        """What stands at the first positions of images of which these values are drawn."""
        return values

    def layout(self) -> SpanLayout:
        count = self.space.length
        return SpanLayout(
            opens=(True,) * count,
            exposed=(True,) * count,
            rows=tuple(range(-1, count - 1)),
            coordinates=raster(*self.space.grid),
        )

    def prepare(self, target: Shaped[Tensor, "n gh gw"]) -> Span:
        check_target(target, self.space)
        flat = target.flatten(1, 2)
        return Span(self._embed(self.standing(flat), 0), flat)

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw value by value. The last is not asked to be read; whoever goes on after the image does that.

        Values that are retained are read in their turn, as if they had been drawn: what is drawn follows from the
        prompt and from all before it, and knows nothing of what stays behind it.
        """
        rows = count_images(start, sampling.guidance, self.unconditional)
        pairs = self.alphabet.pairs and sampling.guidance != 1
        if pairs:  # what follows the empty prompt is an image of its own
            rows, sampling = len(start), replace(sampling, guidance=1.0)
        values = with_retained(begun(progress, start, rows, self.space), progress)
        count, hidden = 0, start
        while not self.is_whole(values):
            standing = self.standing(values)
            if standing.shape[1] > count:
                unread = self._embed(standing[:, count:], count)
                hidden = (yield Ask(doubled(unread, sampling.guidance)))[:, -1]
                count = standing.shape[1]
            drawn = self.draw(hidden, values, sampling, generators)
            values = with_retained(torch.cat([values, drawn[:, None]], 1), progress)
            if progress is not None:
                progress.note(values, values.shape[1])
        target = rearrange(self.target_of(values), "n (gh gw) ... -> n gh gw ...", gh=self.space.grid[0])
        return torch.stack(target.chunk(2), 1) if pairs else target

    def _embed(self, values: Shaped[Tensor, "n m"], first: int) -> Float[Tensor, "n m d"]:
        """What stands at values, the first of them at the place `first`."""
        return at_cells(self.alphabet.embed(values), self.cells, first)
