"""One scale after another, each finer than the last."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm import parts
from chiasm.distribution.devices import fitting
from chiasm.errors import RecipeError
from chiasm.heads import (
    Alphabet,
    Ask,
    DrawingState,
    HeadContext,
    Order,
    Sampling,
    Span,
    SpanLayout,
    Writing,
)
from chiasm.heads.spans import check_target, count_images, doubled, refuse_strays, value_losses
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Chance
from chiasm.tokenizers import join_scales, split_scales
from chiasm.tokenizers.spaces import Codes, Refinement, Space


class Scales(Order, name="scales"):
    """Next-scale prediction over the codes of a multi-scale tokenizer (VAR, arXiv 2404.02905).

    The marker that begins an image predicts its coarsest scale, one code. Each finer scale is a block of positions
    that see each other and all before them; a position reads what the coarser scales say at its cell, and predicts
    its own code, so that an image takes as many steps as it has scales. The alphabet's own embeddings have no part
    in it.

    Args:
        alphabet: what one position says.
        ramp: guidance grows in equal steps, from none at the coarsest scale to its full value at the finest.
        unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    reads_codes: ClassVar[bool] = False
    space: Codes
    alphabet: Alphabet

    def __init__(
        self,
        context: HeadContext,
        *,
        alphabet: Alphabet,
        ramp: bool = True,
        unconditional: Chance = 0.1,
    ):
        super().__init__()
        refuse_strays(self, alphabet)
        refinement = _fitting(context.refinement)
        self._refinement = (refinement,)  # in a tuple, for its weights are the image tokenizer's
        self.space, self.alphabet, self.sides = context.codes, alphabet, tuple(refinement.scales)
        self.unconditional, self.ramp = unconditional, ramp
        self.read = nn.Linear(refinement.width, context.width)
        self.levels = nn.Embedding(len(self.sides) - 1, context.width)
        self.cells = nn.Embedding(context.space.length - 1, context.width)
        for layer in (self.read, self.levels, self.cells):
            nn.init.trunc_normal_(layer.weight, std=math.sqrt(1 / context.width / 3))
        nn.init.zeros_(self.read.bias)

    @classmethod
    def symbols(cls, space: Space) -> int:
        return 0

    @property
    def refinement(self) -> Refinement:
        return self._refinement[0]

    def layout(self) -> SpanLayout:
        count = self.space.length - 1
        opens = [cell == 0 for side in self.sides[1:] for cell in range(side * side)]
        cells = [divmod(cell, side) for side in self.sides[1:] for cell in range(side * side)]
        return SpanLayout(
            tuple(opens),
            exposed=(True,) * count,
            rows=tuple(range(-1, count)),
            coordinates=tuple((i, *cell) for i, cell in enumerate(cells)),
        )

    def prepare(self, codes: Int[Tensor, "n 1 l"]) -> Span:
        """What the positions of the finer scales read; raises ChiasmError on codes of another tokenizer."""
        check_target(codes, self.space)
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            coarser = self.refinement.next_inputs(codes)
        levels = torch.repeat_interleave(self.levels.weight, self._sizes[1:].to(codes.device), 0)
        return Span(
            self.read(fitting(coarser, self.read)) + levels + self.cells.weight,
            rearrange(codes, "n gh gw -> n (gh gw)"),
        )

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        return value_losses(self.alphabet, hidden, span)

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw scale by scale, one ask for each but the first. With `ramp`, guidance is the finest scale's."""
        images = count_images(start, sampling.guidance, self.unconditional)
        codes = self._drawn_scales(progress)
        hidden, refined = start[:, None], torch.zeros(())
        for index, side in enumerate(self.sides):
            if index:
                refined = refined + self.refinement.contribution(codes[index - 1], index - 1)
                read = self._embed(self.refinement.averaged(refined, index), index)
                hidden = yield Ask(doubled(read, sampling.guidance))
            if index == len(codes):
                own = replace(sampling, guidance=self._guidance(sampling.guidance, index))
                rows = hidden[:images] if own.guidance == 1 else hidden
                drawn = self.alphabet.draw(rows, own, generators).values
                codes.append(rearrange(drawn, "n (h w) -> n h w", h=side))
                if progress is not None:
                    progress.note(join_scales(codes)[:, 0], index + 1)
        return join_scales(codes)

    def _drawn_scales(self, progress: DrawingState | None) -> list[Int[Tensor, "n h w"]]:
        """The scales drawn before drawing was stopped."""
        if progress is None or progress.values is None:
            return []
        scales = [(side, side) for side in self.sides[: progress.steps]]
        return split_scales(progress.values[:, None], scales)

    def _guidance(self, guidance: float, index: int) -> float:
        """Of one scale."""
        return 1 + (guidance - 1) * (index / (len(self.sides) - 1) if self.ramp else 1.0)

    def _embed(self, coarser: Float[Tensor, "n m c"], index: int) -> Float[Tensor, "n m d"]:
        """What the positions of one scale read."""
        begin = int(self._sizes[1:index].sum())
        places = self.levels.weight[index - 1] + self.cells.weight[begin : begin + coarser.shape[1]]
        return self.read(fitting(coarser, self.read)) + places

    @property
    def _sizes(self) -> Int[Tensor, " s"]:
        return torch.tensor([side * side for side in self.sides])

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        tokenizer = parts.lookup("image_tokenizer", "multi_scale")
        return {"image_tokenizer": {"type": tokenizer.name, **tokenizer.example()}}


def _fitting(refinement: Refinement | None) -> Refinement:
    """The refinement, if the first of its scales is one code and others follow."""
    if refinement is None:
        raise RecipeError(
            "order 'scales' does not fit an image tokenizer whose codes are no scales that refine each other: use "
            "'multi_scale', or another order"
        )
    scales = list(refinement.scales)
    if scales[0] != 1 or len(scales) < 2:
        raise RecipeError(
            f"order 'scales' needs scales that begin with 1 and go on, but the image tokenizer has {scales}"
        )
    return refinement
