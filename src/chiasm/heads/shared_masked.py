"""Masked prediction of codes that are words of the language model."""

from __future__ import annotations

from typing import Any, Literal

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.bounds import Cells, Chance
from chiasm.heads import SpanLayout, raster
from chiasm.heads.masked import Masked
from chiasm.heads.next_token import check_codes
from chiasm.heads.vocabulary import Words
from chiasm.language import Language


class SharedMasked(Masked, name="shared_masked"):
    """As `masked`, with codes and mask inside the language model's vocabulary (Show-o, arXiv 2408.12528).

    The language model's own rows embed the codes and its own head predicts them, so the head has no weights: what
    is learnt of pictures, the slot `language` learns. Markers of the picture stand in its attention block.

    Args:
        first: id of code 0 in the language model's vocabulary; the others follow it and the mask's behind them;
            null = the vocabulary grows by as many ids.
        before: ids of the markers in the block before the codes of a picture that is written.
        before_read: the same of a picture that is read.
        behind: ids of the markers in the block behind the codes.
        against: what a code is told from in the loss: all ids of the vocabulary, as in Show-o, or codes.
        steps: passes of the language model that draw a picture.
        schedule: share of masked codes from first step to last: cosine, linear, sigmoid, or powX = 1 - t^X (pow2).
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
        before: list[int] | None = None,
        before_read: list[int] | None = None,
        behind: list[int] | None = None,
        against: Literal["vocabulary", "codes"] = "vocabulary",
        steps: Cells = 18,
        schedule: str = "cosine",
        unconditional: Chance = 0.1,
    ):
        nn.Module.__init__(self)
        self._set_up(codebook_size, grid, steps, schedule, unconditional)
        self.words = Words(language, codebook_size + 1, first=first, where=f"image_head {self.name!r}")
        self.reserved, self.against = self.words.ids, against
        self.before, self.behind = before or [], behind or []
        self.before_read = before_read or []

    def standalone(self) -> dict[str, Any]:
        return {"first": self.words.ids[0]}

    def layout(self) -> SpanLayout:
        return self._layout(len(self.before))

    def shown_layout(self) -> SpanLayout:
        return self._layout(len(self.before_read))

    def _layout(self, before: int) -> SpanLayout:
        length = before + self.length + len(self.behind)
        cells = [(row, column) for _, row, column in raster(*self.grid)]
        return SpanLayout(
            opens=(True,) + (False,) * (length - 1),
            exposed=(True,) * length,
            rows=tuple(range(before, before + self.length)),
            # A marker stands at the cell beside it.
            coordinates=tuple((i, *cells[min(max(i - before, 0), self.length - 1)]) for i in range(length)),
        )

    def embed(self, codes: Int[Tensor, "n k"]) -> Float[Tensor, "n s d"]:
        return self._within(codes, self.before)

    def show(self, codes: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n s d"]:
        check_codes(codes, self.grid, self.codebook_size)
        return self._within(codes.flatten(1), self.before_read)

    def _within(self, codes: Int[Tensor, "n k"], before: list[int]) -> Float[Tensor, "n s d"]:
        around = [
            repeat(codes.new_tensor(markers), "m -> n m", n=len(codes)) for markers in (before, self.behind)
        ]
        return self.words.language.embed(torch.cat([around[0], self.words(codes), around[1]], 1))

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        return self.words.logits(hidden).float()[..., :-1]  # never the mask

    def _errors(self, hidden: Float[Tensor, "m d"], codes: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        if self.against == "codes":
            return super()._errors(hidden, codes)
        logits = self.words.language.logits(hidden).float()
        return functional.cross_entropy(logits, self.words(codes), reduction="none")
