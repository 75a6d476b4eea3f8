"""Codes as words of the language model's own vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.errors import RecipeError
from chiasm.heads import LanguageVocabulary


class Words:
    """The ids of a language model that stand for values: its rows embed them, and its head predicts them.

    ids: of each value. It holds the vocabulary, but is no module, so that its weights are registered only once.
    """

    def __init__(self, vocabulary: LanguageVocabulary, ids: Sequence[int]):
        self.vocabulary, self.ids = vocabulary, ids
        self._table = torch.tensor(ids)

    def __call__(self, values: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
        """The ids of values."""
        if isinstance(self.ids, range):
            return values + self.ids.start
        self._table = self._table.to(values.device)
        return self._table[values]

    def embed(self, values: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.vocabulary.embed(self(values))

    def logits(self, hidden: Float[Tensor, "*s d"], count: int) -> Float[Tensor, "*s k"]:
        """Logits of the first `count` values alone."""
        logits = self.vocabulary.logits(hidden)
        if isinstance(self.ids, range):
            return logits[..., self.ids.start : self.ids.start + count]
        return logits.index_select(-1, self._table[:count].to(logits.device))


def check_ids(ids: Sequence[int], count: int, vocabulary: LanguageVocabulary, where: str) -> None:
    """Raise RecipeError unless these are `count` different ids of the language model."""
    rows = vocabulary.vocabulary_size
    if len(ids) != count or len(set(ids)) != count:
        raise RecipeError(
            f"{where}: the table has {len(set(ids))} different ids, but there are {count} codes"
        )
    if min(ids) < 0 or max(ids) >= rows:
        raise RecipeError(
            f"{where}: codes stand at the ids {min(ids)} to {max(ids)}, but the language model has the ids 0 to "
            f"{rows - 1}"
        )
