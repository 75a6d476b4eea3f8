"""Texts with some of their tokens masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.language import Language


@dataclass(frozen=True)
class Hidden:
    """Texts to read. real: False at padding. masked: where a word is hidden. ids: the hidden words, in order."""

    embeddings: Float[Tensor, "n t d"]
    real: Bool[Tensor, "n t"]
    masked: Bool[Tensor, "n t"]
    ids: Int[Tensor, " m"]


class MaskedWords(nn.Module):
    """Hides tokens of texts behind a mask, never the marks of begin and end.

    The mask is the text tokenizer's own token, whose embedding learns with the language model; where it has none,
    an embedding that is learnt here.

    alone, paired: share of the tokens that are hidden of a text alone and of one with an image; at least one is.
    """

    def __init__(self, language: Language, *, alone: float, paired: float, context: int):
        super().__init__()
        if not (0 < alone <= 1 and 0 < paired <= 1):
            raise RecipeError(
                f"objective 'masked_data': words {alone} and paired_words {paired} must be above 0 and at most 1"
            )
        if not 3 <= context <= language.context:
            raise RecipeError(
                f"objective 'masked_data': context {context} must be at least 3 and at most {language.context}, "
                "the language's"
            )
        self.tokenizer, self.context = language.tokenizer, context
        self.shares = {False: alone, True: paired}
        mask = self.tokenizer.inner.mask_token_id
        self.mask = None if mask is None else int(mask)
        learnt = torch.randn(language.width) * language.width**-0.5
        self.token = nn.Parameter(learnt) if self.mask is None else None

    def hide(self, language: Language, texts: Sequence[str], *, paired: bool) -> Hidden:
        """The texts with tokens hidden at random."""
        rows = [self._ids(text) for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.tokenizer.pad] * (longest - len(row)) for row in rows])
        masked = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(rows):
            inside = len(row) - 2
            masked[i, 1 + torch.randperm(inside)[: self._count(inside, paired)]] = True
        real = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        device = next(language.parameters()).device
        ids, masked, real = (each.to(device) for each in (ids, masked, real))
        embeddings = language.embed(ids if self.mask is None else ids.masked_fill(masked, self.mask))
        if self.token is not None:
            embeddings = torch.where(masked[..., None], self.token.to(embeddings.dtype), embeddings)
        return Hidden(embeddings, real, masked, ids[masked])

    def count(self, texts: Sequence[str], *, paired: bool) -> int:
        """How many tokens of the texts are hidden."""
        return sum(self._count(len(self._ids(text)) - 2, paired) for text in texts)

    def cut(self, texts: Sequence[str]) -> int:
        """How many texts do not fit into the context."""
        return sum(len(self.tokenizer.encode_plain(text)) > self.context - 2 for text in texts)

    def _count(self, tokens: int, paired: bool) -> int:
        return min(tokens, max(1, round(self.shares[paired] * tokens)))

    def _ids(self, text: str) -> list[int]:
        inside = self.tokenizer.encode_plain(text)[: self.context - 2]
        return [self.tokenizer.begin, *inside, self.tokenizer.end]
