"""VQGAN with finite scalars: each channel is rounded to a few levels, and the code is all of them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.bounds import Depth, Levels, Multipliers, Pixels, Width, WidthOrZero
from chiasm.errors import RecipeError
from chiasm.tokenizers.autoencoder import Quantized, Quantizer
from chiasm.tokenizers.vqgan import Autoencoder


class FiniteScalars(Quantizer):
    """Rounds channel i to `levels[i]` values in [-1, 1] (arXiv 2309.15505, as in vector-quantize-pytorch).

    Codes are numbers in mixed radix, the first channel the lowest digit. `width` channels are projected to one
    each level and back where their numbers differ. There is nothing to learn, and no loss.
    """

    def __init__(self, width: int, levels: list[int]):
        super().__init__()
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.places: Tensor
        places = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        projects = width != len(levels)
        self.project_in = nn.Linear(width, len(levels)) if projects else nn.Identity()
        self.project_out = nn.Linear(len(levels), width) if projects else nn.Identity()

    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        bounded = self._bounded(self.project_in(latents))
        digits = bounded.round()
        made = self.project_out((bounded + (digits - bounded).detach()) / (self.levels // 2))
        return Quantized(made, self._codes(digits), {})

    def encode(self, latents: Float[Tensor, "*n c"]) -> Int[Tensor, "*n"]:
        return self._codes(self._bounded(self.project_in(latents)).round())

    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
        digits = codes[..., None] // self.places % self.levels - self.levels // 2
        return self.project_out(digits / (self.levels // 2))

    def _bounded(self, scalars: Float[Tensor, "*n l"]) -> Float[Tensor, "*n l"]:
        """Within the levels; an even number of them lies off 0 by half, so the input is moved to keep 0 at 0."""
        half = (
            (self.levels - 1) * 1.001 / 2
        )  # a little beyond the outermost level, which else were never reached
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return (scalars + (offset / half).atanh()).tanh() * half - offset

    def _codes(self, digits: Float[Tensor, "*n l"]) -> Int[Tensor, "*n"]:
        return ((digits.long() + self.levels // 2) * self.places).sum(-1)


class FiniteScalarVQGAN(Autoencoder, name="vqgan_fsq"):
    """VQGAN with finite scalar quantization (arXiv 2309.15505): no codebook, so none that could collapse.

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        depth: residual blocks a level.
        attention_sizes: heights, in positions, of the levels with self-attention; the lowest has it always.
        latent_width: channels that the encoder puts out.
        levels: values of each scalar; their product is the number of codes. [8, 5, 5, 5] is the paper's for 2^10.
        code_width: channels between which and the scalars is projected; 0 = one a scalar, without projections.
    """

    def __init__(
        self,
        *,
        size: Pixels = 256,
        width: Width = 128,
        multipliers: Multipliers = [1, 1, 2, 2, 4],  # noqa: B006
        depth: Depth = 2,
        attention_sizes: list[Pixels] = [16],  # noqa: B006
        latent_width: Width = 256,
        levels: Levels = [8, 5, 5, 5],  # noqa: B006
        code_width: WidthOrZero = 0,
    ):
        if not levels or min(levels) < 2:
            raise RecipeError(f"image_tokenizer 'vqgan_fsq': levels are {levels}; each must be 2 or more")
        super().__init__(
            size=size,
            width=width,
            multipliers=multipliers,
            depth=depth,
            attention_sizes=attention_sizes,
            latent_width=latent_width,
            code_width=code_width or len(levels),
            codebook_size=math.prod(levels),
        )
        self.quantize = FiniteScalars(code_width or len(levels), levels)
