"""LlamaGen's head: next codes for a language model that knows rows and columns by itself."""

from __future__ import annotations

from jaxtyping import Float, Int
from pydantic import NonNegativeInt
from torch import Tensor, nn

from chiasm.bounds import Chance
from chiasm.heads.next_token import NextToken


class LlamaGenHead(NextToken, name="llamagen"):
    """LlamaGen's next-token prediction (arXiv 2406.06525).

    As `next_token`, but a code's embedding says nothing of its cell: the language model tells cells apart, as
    `llamagen` does by their rows and columns. The output layer begins at zero.

    Args:
        guided_codes: how many of a picture's first codes are guided, the rest follow the prompt alone; 0 = all.
        unconditional: share of training pictures that follow an empty prompt, for guidance (0 = never).
    """

    def __init__(
        self,
        width: int,
        codebook_size: int,
        grid: tuple[int, int],
        *,
        guided_codes: NonNegativeInt = 0,
        unconditional: Chance = 0.1,
    ):
        super().__init__(width, codebook_size, grid, unconditional=unconditional)
        del self.cells
        self.guided_codes = guided_codes
        assert isinstance(self.output, nn.Linear)
        nn.init.zeros_(self.output.weight)

    def _guided(
        self, hidden: Float[Tensor, "r d"], codes: Int[Tensor, "n m"], guidance: float
    ) -> Float[Tensor, "n k"]:
        if not self.guided_codes or codes.shape[1] < self.guided_codes:
            return super()._guided(hidden, codes, guidance)
        return self.logits(hidden[: len(codes)])

    def _embed(self, codes: Int[Tensor, "n m"], first: int) -> Float[Tensor, "n m d"]:
        return self.codes(codes)
