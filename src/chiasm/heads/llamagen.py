"""LlamaGen's head: next codes for a language model that knows rows and columns by itself."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pydantic import NonNegativeInt
from torch import Tensor, nn

from chiasm.heads import Step
from chiasm.heads.next_token import NextToken, draw, guided


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
        unconditional: float = 0.1,
    ):
        super().__init__(width, codebook_size, grid, unconditional=unconditional)
        del self.cells
        self.guided_codes = guided_codes
        assert isinstance(self.output, nn.Linear)
        nn.init.zeros_(self.output.weight)

    def _continue(
        self,
        step: Step,
        codes: Int[Tensor, "n m"],
        guidance: float,
        temperature: float,
        top_k: int,
        generator: torch.Generator | None,
    ) -> Int[Tensor, "n k"]:
        known, hidden = 0, step.start
        while codes.shape[1] < self.length:
            if codes.shape[1] > known:
                unread = self._embed(codes[:, known:], first=known)
                hidden = step(unread if guidance == 1 else torch.cat([unread, unread]))[:, -1]
                known = codes.shape[1]
            steered = not self.guided_codes or known < self.guided_codes
            logits = self.output(hidden if steered else hidden[: len(codes)]).float()
            code = draw(guided(logits, guidance if steered else 1), temperature, top_k, generator)
            codes = torch.cat([codes, code[:, None]], 1)
        return codes

    def _embed(self, codes: Int[Tensor, "n m"], first: int) -> Float[Tensor, "n m d"]:
        return self.codes(codes)
