"""Codes with one table for reading and for prediction."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.heads import HeadContext
from chiasm.heads.categorical import Categorical
from chiasm.nn.losses import cross_entropy
from chiasm.parts.bounds import Count, Vocabulary


class Tied(Categorical, name="tied"):
    """A vocabulary of the images' own, whose rows both embed and score (Unified-IO 2, arXiv 2312.17172).

    The loss tells a code from all rows; scores are divided by the root of the width. What an order adds to the
    codes, such as a mask, has the rows before the first code, and rows behind the codes where those do not suffice.

    Args:
        first: row of code 0; the original's rows 0 and 1 begin an image and stand for a masked code.
        rows: of the table; 0 = as many as are needed.
        stray: rows that are no codes may be drawn too, as by the original; only an order that says what they are
            takes them (`raster_begun`).
    """

    def __init__(
        self,
        context: HeadContext,
        symbols: int,
        *,
        first: Count = 2,
        rows: Vocabulary = 0,
        stray: bool = False,
    ):
        super().__init__()
        self.size, self.first = context.codes.size, first
        needed = max(symbols, self.size + first)
        if rows and rows < needed:
            raise RecipeError(
                f"alphabet 'tied': {rows} rows are too few for what it embeds and scores: {needed}"
            )
        self.table = nn.Embedding(rows or needed, context.width)
        self.strays = len(self.table.weight) - self.size if stray else 0

    def rows(self, values: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
        """The row of each value: codes from `first` on, what comes behind them before that, the rest in place."""
        added = values - self.size
        return torch.where(added < 0, values + self.first, torch.where(added < self.first, added, values))

    def embed(self, values: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.table(self.rows(values))

    def loss(
        self,
        hidden: Float[Tensor, "m d"],
        values: Int[Tensor, " m"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> Float[Tensor, ""]:
        return cross_entropy(self.row_logits(hidden), self.rows(values), weights)

    def row_logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s r"]:
        """Of all rows, in float32."""
        return functional.linear(hidden, self.table.weight).float() / math.sqrt(self.table.embedding_dim)

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        """Of the codes, and behind them of what else may be drawn."""
        logits = self.row_logits(hidden)
        values = torch.arange(self.size + self.strays, device=logits.device)
        return logits.index_select(-1, self.rows(values))
