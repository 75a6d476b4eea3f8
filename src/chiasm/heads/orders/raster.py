"""One position after another, row by row."""

from __future__ import annotations

from dataclasses import replace

from einops import rearrange
from jaxtyping import Float, Int
from pydantic import NonNegativeInt
from torch import Tensor

from chiasm.bounds import Chance
from chiasm.generators import Generators
from chiasm.heads import (
    Alphabet,
    DrawingState,
    HeadContext,
    Order,
    Sampling,
    Span,
    SpanLayout,
    Writing,
    raster,
)
from chiasm.heads.one_by_one import one_by_one
from chiasm.heads.spans import (
    at_cells,
    begun,
    cell_embedding,
    check_codes,
    count_images,
    refuse_strays,
    value_losses,
)
from chiasm.losses import Loss


class Raster(Order, name="raster"):
    """Next-token prediction over an image's codes, row by row (LlamaGen, arXiv 2406.06525; Janus, 2410.13848;
    Chameleon, 2405.09818; Emu3, 2409.18869; LVM, 2312.00785; Open-MAGVIT2, 2409.04410).

    Every code opens an attention block of its own, so codes are seen causally, as words are. The marker that begins
    an image always predicts the first cell.

    Args:
        alphabet: what one position says.
        cells: add a learnt embedding of its cell to what stands at a position, which tells the language model which
            cell comes next; without it only the language model's positions tell cells apart.
        guided_codes: how many of an image's first codes are guided, the rest follow the prompt alone; 0 = all.
        unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    def __init__(
        self,
        context: HeadContext,
        *,
        alphabet: Alphabet,
        cells: bool = True,
        guided_codes: NonNegativeInt = 0,
        unconditional: Chance = 0.1,
    ):
        super().__init__()
        refuse_strays(self, alphabet)
        self.space, self.alphabet = context.space, alphabet
        self.guided_codes, self.unconditional = guided_codes, unconditional
        self.cells = cell_embedding(context.space.length, context.width) if cells else None

    def layout(self) -> SpanLayout:
        count = self.space.length
        return SpanLayout(
            opens=(True,) * count,
            exposed=(True,) * count,
            rows=tuple(range(-1, count - 1)),
            coordinates=raster(*self.space.grid),
        )

    def prepare(self, codes: Int[Tensor, "n gh gw"]) -> Span:
        check_codes(codes, self.space)
        flat = rearrange(codes, "n gh gw -> n (gh gw)")
        return Span(self._embed(flat, 0), flat)

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        return value_losses(self.alphabet, hidden, span)

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw cell by cell. The last code is not asked to be read; whoever goes on after the image does that."""

        def draw(hidden: Tensor, codes: Tensor) -> Tensor:
            guided = not self.guided_codes or codes.shape[1] < self.guided_codes
            if guided:
                return self.alphabet.draw(hidden, sampling, generators).values
            return self.alphabet.draw(
                hidden[: len(codes)], replace(sampling, guidance=1.0), generators
            ).values

        codes = yield from one_by_one(
            start,
            begun(progress, start, count_images(start, sampling.guidance, self.unconditional)),
            sampling.guidance,
            progress,
            embed=self._embed,
            draw=draw,
            whole=lambda codes: codes.shape[1] == self.space.length,
        )
        return rearrange(codes, "n (gh gw) -> n gh gw", gh=self.space.grid[0])

    def _embed(self, codes: Int[Tensor, "n m"], first: int) -> Float[Tensor, "n m d"]:
        return at_cells(self.alphabet.embed(codes), self.cells, first)
