"""Finite scalar quantization: each channel is rounded to a few levels, and the code is all of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.parts.bounds import Levels, WidthOrZero
from chiasm.tokenizers.quantizers import Quantized, Quantizer

MOST = 2**24  # codes


class FiniteScalars(Quantizer, name="fsq"):
    """Rounds channel i to `levels[i]` values in [-1, 1] (arXiv 2309.15505, as in vector-quantize-pytorch).

    Codes are numbers in mixed radix, the first channel the lowest digit. There is no codebook, so none that could
    collapse; nothing to learn, and no loss.

    Args:
        levels: values of each scalar; their product is the number of codes. [8, 5, 5, 5] is the paper's for 2^10.
        width: channels between which and the scalars is projected; 0 = one a scalar, without projections.
        symmetric: the values lie evenly from -1 to 1 (arXiv 2411.19842), which 2 levels need; else 0 is one of
            them, also where their number is even.
        clamped: channels are cut off at -1 and 1 instead of bent by tanh.
    """

    def __init__(
        self,
        *,
        levels: Levels = [8, 5, 5, 5],  # noqa: B006
        width: WidthOrZero = 0,
        symmetric: bool = False,
        clamped: bool = False,
    ):
        if min(levels) < 3 and not symmetric:
            raise RecipeError(
                f"quantizer 'fsq': levels are {levels}; with 2 of them one is never reached unless symmetric is "
                "true"
            )
        if math.prod(levels) > MOST:
            raise RecipeError(f"quantizer 'fsq': levels are {levels}; they make more than {MOST} codes")
        super().__init__()
        self.width, self.codebook_size = width or len(levels), math.prod(levels)
        self.symmetric, self.clamped = symmetric, clamped
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.places: Tensor
        places = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        projects = self.width != len(levels)
        self.project_in = nn.Linear(self.width, len(levels)) if projects else nn.Identity()
        self.project_out = nn.Linear(len(levels), self.width) if projects else nn.Identity()

    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        bounded = self._bounded(self.project_in(latents))
        rounded = self._rounded(bounded)
        vectors = self.project_out(self._values(bounded + (rounded - bounded).detach()))
        return Quantized(vectors, self._codes(rounded), {})

    def encode(self, latents: Float[Tensor, "*n c"]) -> Int[Tensor, "*n"]:
        return self._codes(self._rounded(self._bounded(self.project_in(latents))))

    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
        digits = codes[..., None] // self.places % self.levels
        return self.project_out(self._values((digits - self._lowest).float()))

    @property
    def _lowest(self) -> Int[Tensor, " l"]:
        """How far below 0 each channel's numbers begin."""
        return torch.zeros_like(self.levels) if self.symmetric else self.levels // 2

    def _bounded(self, scalars: Float[Tensor, "*n l"]) -> Float[Tensor, "*n l"]:
        """Within each channel's numbers."""
        bend = (lambda x: x.clamp(-1, 1)) if self.clamped else torch.tanh
        if self.symmetric:
            return (self.levels - 1) * (bend(scalars) + 1) / 2
        # A little beyond the outermost number, which else were never reached. An even count of them lies off 0 by
        # half, so the input is moved to keep 0 at 0.
        half = (self.levels - 1) * 1.001 / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        shift = offset / half if self.clamped else (offset / half).atanh()
        return bend(scalars + shift) * half - offset

    def _rounded(self, bounded: Float[Tensor, "*n l"]) -> Float[Tensor, "*n l"]:
        """The nearest number; of two equally near the higher, or the even one."""
        return (bounded + 0.5).floor() if self.symmetric else bounded.round()

    def _values(self, rounded: Float[Tensor, "*n l"]) -> Float[Tensor, "*n l"]:
        return rounded * (2 / (self.levels - 1)) - 1 if self.symmetric else rounded / (self.levels // 2)

    def _codes(self, rounded: Float[Tensor, "*n l"]) -> Int[Tensor, "*n"]:
        return ((rounded.long() + self._lowest) * self.places).sum(-1)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"levels": [4, 3]}
