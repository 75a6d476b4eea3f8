"""Codes that are words of the language model."""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor

from chiasm.errors import RecipeError
from chiasm.heads import HeadContext
from chiasm.heads.categorical import Categorical
from chiasm.heads.words import Words, check_ids
from chiasm.nn.losses import cross_entropy


class SharedVocabulary(Categorical, name="shared"):
    """Codes inside the language model's vocabulary (Chameleon, arXiv 2405.09818; Emu3, 2409.18869; LVM, 2312.00785;
    Show-o, 2408.12528; LaVIT, 2309.04669).

    The language model's own rows embed the codes and its own head predicts them, so there are no weights here: what
    is learnt of images, the slot `language` learns. An image draws among the codes alone, and text never says one
    of them. What an order adds to the codes, such as a mask, has the ids behind them.

    Args:
        first: id of code 0 in the language model's vocabulary, the others follow it; null = the vocabulary grows by
            as many ids.
        end: id of the code that ends an image, the last one, where it does not follow the others.
        table: instead of `first`, the id of each code, where they are scattered over the vocabulary.
        stray: ids of words that may be drawn within an image, as by LaVIT; they are no part of it.
        against: what the loss tells a code from: all ids of the vocabulary, as the originals do, or codes.
        counted_as: the name of the loss; 'text' = one mean over words and codes alike, as of Chameleon and Emu3.
    """

    def __init__(
        self,
        context: HeadContext,
        symbols: int,
        *,
        first: int | None = None,
        end: int | None = None,
        table: list[int] | None = None,
        stray: list[int] = [],  # noqa: B006
        against: Literal["vocabulary", "codes"] = "vocabulary",
        counted_as: Literal["image", "text"] = "image",
    ):
        super().__init__()
        where, count = f"alphabet {self.name!r}", max(symbols, context.codes.size)
        if first is not None and table is not None:
            raise RecipeError(f"{where}: give either 'first' or 'table', not both")
        if end is not None and first is None:
            raise RecipeError(f"{where}: 'end' is given, so 'first' must be")
        ids: range | list[int]
        if table is not None:
            ids = list(table)
        else:
            start = context.vocabulary.grow(count) if first is None else first
            ids = range(start, start + count)
        if end is not None:
            ids = [*ids[:-1], end]
        check_ids(ids, count, context.vocabulary, where)
        if stray:
            check_ids([*ids, *stray], count + len(stray), context.vocabulary, where)
        self.size, self.against, self.counted_as = context.codes.size, against, counted_as
        self.reserved, self.strays = ids, len(stray)
        self.words = Words(context.vocabulary, [*ids, *stray] if stray else ids)

    def standalone(self) -> dict[str, Any]:
        return {"first": self.reserved[0]} if isinstance(self.reserved, range) else {}

    def embed(self, values: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.words.embed(values)

    def loss(
        self,
        hidden: Float[Tensor, "m d"],
        values: Int[Tensor, " m"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> Float[Tensor, ""]:
        if self.against == "vocabulary":
            return cross_entropy(self.words.vocabulary.logits(hidden), self.words(values), weights)
        return cross_entropy(self.words.logits(hidden, self.size), values, weights)

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        """Of the codes, and behind them of the stray words; never of what an order adds."""
        return self.words.logits(hidden, self.size + self.strays).float()
