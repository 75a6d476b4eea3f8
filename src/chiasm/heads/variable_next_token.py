"""Pictures as codes that are words of the language model, as many as the picture needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from chiasm.bounds import Chance, Count
from chiasm.errors import RecipeError
from chiasm.generators import Generators
from chiasm.heads import DrawingState, Sampling, Span, SpanLayout, Writing
from chiasm.heads.next_token import begun, count_images, learnt
from chiasm.heads.sampling import guided
from chiasm.heads.shared_next_token import SharedNextToken
from chiasm.heads.vocabulary import Words
from chiasm.language import Language
from chiasm.losses import Loss, cross_entropy


class VariableNextToken(SharedNextToken, name="variable_next_token"):
    """LaVIT's image head (arXiv 2309.04669): next-token prediction that ends where the picture's codes end.

    The image tokenizer's last code ends a picture (see the image tokenizer `lavit`). Neither the codes behind the
    first end are learnt, nor are they drawn. The codes are words of the language model, told from all of its
    words. The original guides logarithms of chances; guided logits differ from them by a number that all codes
    share, so they choose the same. The empty prompt is the marker that begins a picture, alone.

    Args:
        first: id of code 0 in the language model's vocabulary, the others follow it; null = the vocabulary grows by
            as many ids as there are codes.
        end: id of the code that ends a picture, where it does not follow the others.
        shortest: fewest codes of a picture that is drawn.
        stray: ids of words that the original may draw within a picture; they are no part of it.
        unconditional: share of training pictures that follow an empty prompt, for guidance (0 = never).
    """

    def __init__(
        self,
        width: int,
        codebook_size: int,
        grid: tuple[int, int],
        language: Language,
        *,
        first: int | None = None,
        end: int | None = None,
        shortest: Count = 1,
        stray: list[int] = [],  # noqa: B006
        unconditional: Chance = 0.1,
    ):
        nn.Module.__init__(self)
        self._set_up(codebook_size, grid, unconditional)
        if end is not None and first is None:
            raise RecipeError(f"image_head {self.name!r}: 'end' is given, so 'first' must be")
        self.end, self.shortest = codebook_size - 1, shortest
        where = f"image_head {self.name!r}"
        if end is None:
            self.words = Words(language, codebook_size, first=first, where=where)
        else:
            assert first is not None
            table = [*range(first, first + self.end), end]
            self.words = Words(language, codebook_size, table=table, where=where)
        self.reserved = self.words.ids
        # What may stand in a row while it is drawn: codes, the end, and behind them the stray words.
        self.drawable = Words(
            language, codebook_size + len(stray), table=[*self.words.ids, *stray], where=where
        )

    def standalone(self) -> dict[str, Any]:
        return {"first": self.words.ids[0]}

    def layout(self) -> SpanLayout:
        return replace(super().layout(), bare=True)

    def losses(self, hidden: Tensor, span: Span) -> dict[str, Loss]:
        """Of the codes up to the first end, and of that end."""
        learns = self._learns(span)
        codes = self.words(span.targets[learns])
        total = cross_entropy(self.words.language.logits(hidden[learns]), codes)
        return {"image": Loss(total, total.new_tensor(float(len(codes))))}

    def terms(self, codes: Int[Tensor, "n gh gw"], orphans: Bool[Tensor, " n"]) -> dict[str, float]:
        flat = codes.flatten(1)
        return {"image": float(self._learns(Span(flat[..., None], flat, orphans)).sum())}

    def _learns(self, span: Span) -> Bool[Tensor, "n k"]:
        learns = self.before_end(span.targets, itself=True)
        return learns if span.orphans is None else learns & learnt(span)

    def before_end(self, codes: Int[Tensor, "n k"], *, itself: bool = False) -> Bool[Tensor, "n k"]:
        """True for the codes before the first end of each row; with `itself`, for that end too."""
        ended = codes == self.end
        return (ended.cumsum(1) - ended.long() * itself) == 0

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw code by code, each row filled up with the end. Of what is noted, stray words have numbers behind the
        codes'."""
        images = count_images(start, sampling.guidance, self.unconditional)
        known = begun(progress, start, images)
        drawn = yield from self._continue(start, known, sampling, generators, progress)
        codes = torch.full((images, self.length), self.end, device=drawn.device)
        for row, (words, meant) in enumerate(zip(drawn, self.before_end(drawn), strict=True)):
            own = words[meant & (words < self.end)]
            codes[row, : len(own)] = own
        return rearrange(codes, "n (gh gw) -> n gh gw", gh=self.grid[0])

    def _ended(self, codes: Int[Tensor, "n m"]) -> bool:
        return bool((codes == self.end).any(1).all())

    def _guided(
        self, hidden: Float[Tensor, "r d"], codes: Int[Tensor, "n m"], guidance: float
    ) -> Float[Tensor, "n k"]:
        """Behind its end a row holds nothing but ends, before `shortest` codes none."""
        logits = guided(self.drawable.logits(hidden).float(), guidance)
        ended = (codes == self.end).any(1)
        logits[ended] = -torch.inf
        logits[:, self.end] = torch.where(ended, 0.0, logits[:, self.end])
        if codes.shape[1] < self.shortest:
            logits[:, self.end] = -torch.inf
        return logits

    def _embed(self, codes: Int[Tensor, "n m"], first: int) -> Float[Tensor, "n m d"]:
        return self.drawable.embed(codes)
