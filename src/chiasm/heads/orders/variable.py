"""One position after another, as many as the image needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.heads import Alphabet, HeadContext, Sampling, Span, SpanLayout
from chiasm.heads.one_by_one import OneByOne
from chiasm.heads.spans import counted, not_orphaned
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Chance, Count
from chiasm.tokenizers.spaces import Codes


class Variable(OneByOne, name="variable"):
    """Next-token prediction that ends where the image's codes end (LaVIT, arXiv 2309.04669).

    The image tokenizer's last code ends an image (see the image tokenizer `lavit`). Neither the codes behind the
    first end are learnt, nor are they drawn. The original guides logarithms of chances; guided logits differ from
    them by a number that all codes share, so they choose the same. The empty prompt is the marker that begins an
    image, alone.

    Args:
        alphabet: what one position says.
        shortest: fewest codes of an image that is drawn.
        cells: add a learnt embedding of its place to what stands at a position; without it only the language
            model's positions tell places apart.
        unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    edits: ClassVar[bool] = False  # its codes have no places of their own

    def __init__(
        self,
        context: HeadContext,
        *,
        alphabet: Alphabet,
        shortest: Count = 1,
        cells: bool = False,
        unconditional: Chance = 0.1,
    ):
        super().__init__(context, alphabet, cells, unconditional)
        if not isinstance(context.space, Codes) or context.space.end is None:
            raise RecipeError(
                "order 'variable' does not fit an image tokenizer whose images all have as many codes: use "
                "'lavit', or another order"
            )
        self.end, self.shortest = context.space.end, shortest

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        tokenizer = parts.lookup("image_tokenizer", "lavit")
        return {
            "image_tokenizer": {"type": tokenizer.name, **tokenizer.example(), "codebook_size": 15}
        }  # and an end

    def layout(self) -> SpanLayout:
        return replace(super().layout(), bare=True)

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        """Of the codes up to the first end, and of that end."""
        learns = self._learns(span)
        return counted(self.alphabet, hidden[learns], span.targets[learns])

    def terms(self, codes: Int[Tensor, "n gh gw"], orphans: Bool[Tensor, " n"]) -> dict[str, float]:
        flat = codes.flatten(1)
        return {self.alphabet.counted_as: float(self._learns(Span(flat[..., None], flat, orphans)).sum())}

    def _learns(self, span: Span) -> Bool[Tensor, "n k"]:
        return self.before_end(span.targets, itself=True) & not_orphaned(span)

    def before_end(self, codes: Int[Tensor, "n k"], *, itself: bool = False) -> Bool[Tensor, "n k"]:
        """True for the codes before the first end of each row; with `itself`, for that end too."""
        ended = codes == self.end
        return (ended.cumsum(1) - ended.long() * itself) == 0

    def draw(
        self,
        hidden: Float[Tensor, "r d"],
        values: Int[Tensor, "n m"],
        sampling: Sampling,
        generators: Generators | None,
    ) -> Int[Tensor, " n"]:
        """Behind its end a row holds nothing but ends, before `shortest` codes none. Strays may be drawn."""
        never = self.end if values.shape[1] < self.shortest else None
        drawn = self.alphabet.draw(hidden, sampling, generators, never=never).values
        return drawn.masked_fill((values == self.end).any(1), self.end)

    def is_whole(self, values: Int[Tensor, "n m"]) -> bool:
        return super().is_whole(values) or bool((values == self.end).any(1).all())

    def target_of(self, values: Int[Tensor, "n m"]) -> Int[Tensor, "n k"]:
        """Without the alphabet's strays, each row filled up with the end."""
        codes = torch.full((len(values), self.space.length), self.end, device=values.device)
        for row, (drawn, meant) in enumerate(zip(values, self.before_end(values), strict=True)):
            own = drawn[meant & (drawn < self.end)]
            codes[row, : len(own)] = own
        return codes
