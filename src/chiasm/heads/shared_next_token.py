"""Pictures as codes that are words of the language model, predicted one after another."""

from __future__ import annotations

from typing import Any, Literal

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.bounds import Chance
from chiasm.heads import Span
from chiasm.heads.next_token import NextToken, learnt
from chiasm.heads.vocabulary import Words
from chiasm.language import Language
from chiasm.losses import Loss, cross_entropy


class SharedNextToken(NextToken, name="shared_next_token"):
    """Next-token prediction over codes inside the language model's vocabulary: Chameleon (arXiv 2405.09818),
    Emu3 (arXiv 2409.18869), LVM (arXiv 2312.00785).

    The language model's own rows embed the codes and its own head predicts them, so the head has no weights: what
    is learnt of pictures, the slot `language` learns. A picture draws among the codes alone, and text never says
    one of them.

    Args:
        first: id of code 0 in the language model's vocabulary, the others follow it; null = the vocabulary grows by
            as many ids as there are codes.
        table: instead of `first`, the id of each code, where they are scattered over the vocabulary.
        against: what a code is told from in the loss: all ids of the vocabulary, as the originals do, or codes.
        counted_as: the name of the loss; 'text' = one mean over words and codes alike, as the originals have it.
        unconditional: share of training pictures that follow an empty prompt, for guidance (0 = never).
    """

    wants = ("language",)

    def __init__(
        self,
        width: int,
        codebook_size: int,
        grid: tuple[int, int],
        language: Language,
        *,
        first: int | None = None,
        table: list[int] | None = None,
        against: Literal["vocabulary", "codes"] = "vocabulary",
        counted_as: Literal["image", "text"] = "image",
        unconditional: Chance = 0.1,
    ):
        nn.Module.__init__(self)
        self._set_up(codebook_size, grid, unconditional)
        self.words = Words(
            language, codebook_size, first=first, table=table, where=f"image_head {self.name!r}"
        )
        self.reserved = self.words.ids
        self.against, self.counted_as = against, counted_as

    def standalone(self) -> dict[str, Any]:
        return {"first": self.words.ids.start} if isinstance(self.words.ids, range) else {}

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        codes = span.targets
        if span.orphans is not None:
            learns = learnt(span)
            hidden, codes = hidden[learns], codes[learns]
        hidden, codes = rearrange(hidden, "... d -> (...) d"), codes.flatten()
        if self.against == "vocabulary":
            total = cross_entropy(self.words.language.logits(hidden), self.words(codes))
        else:
            total = cross_entropy(self.words.logits(hidden), codes)
        return {self.counted_as: Loss(total, total.new_tensor(float(len(codes))))}

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        return self.words.logits(hidden).float()

    def _embed(self, codes: Int[Tensor, "n m"], first: int) -> Float[Tensor, "n m d"]:
        return self.words.embed(codes)
