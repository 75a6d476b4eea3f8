"""Codes of pictures as words of the language model's own vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.errors import RecipeError
from chiasm.language import Language


class Words:
    """The ids of a language model that stand for codes: its rows embed them, and its head predicts them.

    first: id of code 0, the others behind it; None: the vocabulary grows by as many. table: instead, the id of
    each code. It holds the language model, but is no module, so that its weights are registered only once.
    """

    def __init__(
        self,
        language: Language,
        count: int,
        *,
        first: int | None = None,
        table: Sequence[int] | None = None,
        where: str,
    ):
        if first is not None and table is not None:
            raise RecipeError(f"{where}: give either 'first' or 'table', not both")
        if table is None:
            first = language.grow(count) if first is None else first
            table = range(first, first + count)
        rows = language.vocabulary_size
        if len(table) != count or len(set(table)) != count:
            raise RecipeError(
                f"{where}: the table has {len(set(table))} different ids, but there are {count} codes"
            )
        if min(table) < 0 or max(table) >= rows:
            raise RecipeError(
                f"{where}: codes stand at the ids {min(table)} to {max(table)}, but the language model has the ids "
                f"0 to {rows - 1}"
            )
        self.language, self.ids = language, table
        self._table = torch.tensor(table)

    def __call__(self, codes: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
        """The ids of codes."""
        if isinstance(self.ids, range):
            return codes + self.ids.start
        self._table = self._table.to(codes.device)
        return self._table[codes]

    def embed(self, codes: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.language.embed(self(codes))

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        """Logits of the codes alone."""
        logits = self.language.logits(hidden)
        if isinstance(self.ids, range):
            return logits[..., self.ids.start : self.ids.stop]
        return logits.index_select(-1, self._table.to(logits.device))
