"""One position after another, row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from jaxtyping import Float, Shaped
from pydantic import NonNegativeInt
from torch import Tensor

from chiasm.heads import Alphabet, HeadContext, Sampling, Span
from chiasm.heads.one_by_one import OneByOne
from chiasm.heads.spans import refuse_strays, value_losses
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Chance
from chiasm.tokenizers.spaces import Codes, Vectors


class Raster(OneByOne, name="raster"):
    """Next-token prediction over an image's codes, row by row (LlamaGen, arXiv 2406.06525; Janus, 2410.13848;
    Chameleon, 2405.09818; Emu3, 2409.18869; LVM, 2312.00785; Open-MAGVIT2, 2409.04410), or over its vectors (Emu2,
    2312.13286; NextStep-1, 2508.10711).

    Every value opens an attention block of its own, so values are seen causally, as words are. The marker that
    begins an image always predicts the first cell.

    Args:
        alphabet: what one position says.
        cells: add a learnt embedding of its cell to what stands at a position, which tells the language model which
            cell comes next; without it only the language model's positions tell cells apart.
        guided_codes: how many of an image's first values are guided, the rest follow the prompt alone; 0 = all.
        unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    spaces: ClassVar = (Codes, Vectors)

    def __init__(
        self,
        context: HeadContext,
        *,
        alphabet: Alphabet,
        cells: bool = True,
        guided_codes: NonNegativeInt = 0,
        unconditional: Chance = 0.1,
    ):
        super().__init__(context, alphabet, cells, unconditional)
        refuse_strays(self, alphabet)
        self.guided_codes = guided_codes

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        return value_losses(self.alphabet, hidden, span)

    def draw(
        self,
        hidden: Float[Tensor, "r d"],
        values: Shaped[Tensor, "n m"],
        sampling: Sampling,
        generators: Generators | None,
    ) -> Shaped[Tensor, " n"]:
        if self.guided_codes and values.shape[1] >= self.guided_codes:
            hidden, sampling = hidden[: len(values)], replace(sampling, guidance=1.0)
        return self.alphabet.draw(hidden, sampling, generators).values
