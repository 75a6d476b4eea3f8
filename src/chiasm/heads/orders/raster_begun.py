"""One position after another behind a symbol that begins the image."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.heads import Alphabet, HeadContext, Sampling, Span, SpanLayout, raster
from chiasm.heads.one_by_one import OneByOne
from chiasm.heads.spans import value_losses
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Chance
from chiasm.tokenizers.spaces import Codes

ADDED = 2  # values behind the codes: the symbol, and a mask, of which the original has a row


class RasterBegun(OneByOne, name="raster_begun"):
    """Next-token prediction over an image's codes, row by row, behind a symbol of the image's own vocabulary
    (Unified-IO 2, arXiv 2312.17172).

    The symbol, not the position before the image, predicts the first code. Every position has the row and column of
    the cell that it predicts, so that a language model that turns by cells knows which comes next.

    Args:
        alphabet: what one position says.
        unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    def __init__(self, context: HeadContext, *, alphabet: Alphabet, unconditional: Chance = 0.1):
        super().__init__(context, alphabet, False, unconditional)

    @classmethod
    def symbols(cls, space: Codes) -> int:
        return space.size + 1

    def layout(self) -> SpanLayout:
        count, (rows, columns) = self.space.length, self.space.grid
        return SpanLayout(
            opens=(True,) * (count + 1),
            exposed=(True,) * (count + 1),
            rows=tuple(range(count)),
            coordinates=(*raster(rows, columns), (count, rows, 0)),
        )

    def standing(self, values: Int[Tensor, "n m"]) -> Int[Tensor, "n k"]:
        return functional.pad(values, (1, 0), value=self.space.size)

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        """One term a code, also where nothing stands before an image."""
        return value_losses(self.alphabet, hidden, span._replace(orphans=None))

    def draw(
        self,
        hidden: Float[Tensor, "r d"],
        values: Int[Tensor, "n m"],
        sampling: Sampling,
        generators: Generators | None,
    ) -> Int[Tensor, " n"]:
        return self.alphabet.draw(hidden, sampling, generators).values

    def codes_of(self, values: Int[Tensor, "n m"]) -> Int[Tensor, "n k"]:
        """The symbol and a mask count as the first code, rows behind the codes as the last: the original's."""
        codes = values.clamp(max=self.space.size - 1)
        return torch.where((values >= self.space.size) & (values < self.space.size + ADDED), 0, codes)
