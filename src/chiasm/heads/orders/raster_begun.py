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
from chiasm.tokenizers.spaces import Space

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
        self.codes = context.codes.size

    @classmethod
    def symbols(cls, space: Space) -> int:
        return super().symbols(space) + 1

    def layout(self) -> SpanLayout:
        count, (rows, columns) = self.space.length, self.space.grid
        return SpanLayout(
            opens=(True,) * (count + 1),
            exposed=(True,) * (count + 1),
            rows=tuple(range(count)),
            coordinates=(*raster(rows, columns), (count, rows, 0)),
        )

    def standing(self, values: Int[Tensor, "n m"]) -> Int[Tensor, "n k"]:
        return functional.pad(values, (1, 0), value=self.codes)

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

    def target_of(self, values: Int[Tensor, "n m"]) -> Int[Tensor, "n k"]:
        """The symbol and a mask count as the first code, rows behind the codes as the last: the original's."""
        codes = values.clamp(max=self.codes - 1)
        return torch.where((values >= self.codes) & (values < self.codes + ADDED), 0, codes)
