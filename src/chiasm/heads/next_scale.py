"""Pictures as maps of codes predicted one after another, each finer than the last."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.bounds import Chance
from chiasm.devices import fitting
from chiasm.errors import RecipeError
from chiasm.generators import Generators
from chiasm.heads import Ask, DrawingState, ImageHead, Sampling, Span, SpanLayout, Writing
from chiasm.heads.next_token import check_codes, code_loss, count_images, doubled
from chiasm.heads.sampling import choose
from chiasm.losses import Loss
from chiasm.tokenizers import ImageTokenizer, join_scales, split_scales
from chiasm.tokenizers.multi_scale import MultiScale, ResidualScales


class NextScale(ImageHead, name="next_scale"):
    """Next-scale prediction over the codes of a multi-scale tokenizer (VAR, arXiv 2404.02905).

    The marker that begins a picture predicts its coarsest scale, one code. Each finer scale is a block of positions
    that see each other and all before them; a position reads what the coarser scales say at its cell, and predicts
    its own code, so that a picture takes as many steps as it has scales.

    Args:
        unconditional: share of training pictures that follow an empty prompt, for guidance (0 = never).
        ramp: guidance grows in equal steps, from none at the coarsest scale to its full value at the finest.
    """

    wants = ("image_tokenizer",)

    def __init__(
        self,
        width: int,
        codebook_size: int,
        grid: tuple[int, int],
        image_tokenizer: ImageTokenizer,
        *,
        unconditional: Chance = 0.1,
        ramp: bool = True,
    ):
        super().__init__()
        self._tokenizer = (_fitting(image_tokenizer),)
        self.codebook_size, self.grid, self.sides = codebook_size, grid, self.quantizer.scales
        self.unconditional, self.ramp = unconditional, ramp
        code_width = self.quantizer.embedding.embedding_dim
        self.read = nn.Linear(code_width, width)
        self.levels = nn.Embedding(len(self.sides) - 1, width)
        self.cells = nn.Embedding(self.length - 1, width)
        self.output = nn.Linear(width, codebook_size)
        deviation = math.sqrt(1 / width / 3)
        for layer in (self.read, self.levels, self.cells, self.output):
            nn.init.trunc_normal_(layer.weight, std=deviation)
        with torch.no_grad():
            self.output.weight *= 0.02
        nn.init.zeros_(self.read.bias)
        nn.init.zeros_(self.output.bias)

    @property
    def quantizer(self) -> ResidualScales:
        return self._tokenizer[0].quantize

    @property
    def length(self) -> int:
        """Codes of a picture."""
        return self.grid[0] * self.grid[1]

    def layout(self) -> SpanLayout:
        count = self.length - 1
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
        check_codes(codes, self.grid, self.codebook_size)
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            coarser = self.quantizer.next_inputs(codes)
        levels = torch.repeat_interleave(self.levels.weight, self._sizes[1:].to(codes.device), 0)
        return Span(
            self.read(fitting(coarser, self.read)) + levels + self.cells.weight,
            rearrange(codes, "n gh gw -> n (gh gw)"),
        )

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        return {"image": code_loss(self.output(hidden).float(), span)}

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw scale by scale, one ask for each but the first. With `ramp`, guidance is the finest scale's."""
        images = count_images(start, sampling.guidance, self.unconditional)
        codes = self._known(progress)
        hidden, made = start[:, None], torch.zeros(())
        for index, side in enumerate(self.sides):
            if index:
                made = made + self.quantizer.said(codes[index - 1], index - 1)
                read = self._embed(self.quantizer.averaged(made, index), index)
                hidden = yield Ask(doubled(read, sampling.guidance))
            if index == len(codes):
                logits = self.output(self._guided(hidden, images, sampling.guidance, index)).float()
                drawn = choose(logits, sampling, generators)
                codes.append(rearrange(drawn, "n (h w) -> n h w", h=side))
                if progress is not None:
                    progress.note(join_scales(codes)[:, 0], index + 1)
        return join_scales(codes)

    def _known(self, progress: DrawingState | None) -> list[Int[Tensor, "n h w"]]:
        """The scales drawn before drawing was stopped."""
        if progress is None or progress.values is None:
            return []
        scales = [(side, side) for side in self.sides[: progress.steps]]
        return split_scales(progress.values[:, None], scales)

    def _guided(
        self, hidden: Float[Tensor, "r m d"], images: int, guidance: float, index: int
    ) -> Float[Tensor, "n m d"]:
        """Guidance of hidden states: the output layer is linear, so that it need not be computed twice."""
        share = index / (len(self.sides) - 1) if self.ramp else 1.0
        strength = 1 + (guidance - 1) * share
        if strength == 1:
            return hidden[:images]
        conditional, unconditional = hidden.chunk(2)
        return torch.lerp(unconditional, conditional, strength)

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
        return {"image_tokenizer": {"type": MultiScale.name, **MultiScale.example()}}


def _fitting(tokenizer: ImageTokenizer) -> MultiScale:
    """The tokenizer, if it says a picture in ever finer scales, the first of them one code."""
    if not isinstance(tokenizer, MultiScale):
        raise RecipeError(
            f"image_head 'next_scale' does not fit image_tokenizer {tokenizer.name!r}, whose codes are no scales "
            "that refine each other: use 'multi_scale', or another head"
        )
    scales = tokenizer.quantize.scales
    if scales[0] != 1 or len(scales) < 2:
        raise RecipeError(
            f"image_head 'next_scale' needs scales that begin with 1 and go on, but image_tokenizer "
            f"'multi_scale' has {list(scales)}"
        )
    return tokenizer
