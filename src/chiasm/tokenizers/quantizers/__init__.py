"""Quantizers: latents to codes and back, whatever network stands before and behind them."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.nn.losses import Loss
from chiasm.parts import Part


class Quantized(NamedTuple):
    """Latents replaced by codes.

    vectors: the codes' vectors; the gradient passes straight to the latents.
    losses: what trains the codebook and holds the latents to it, by name.
    """

    vectors: Float[Tensor, "*n c"]
    codes: Int[Tensor, "*n"]
    losses: dict[str, Loss]


class Quantizer(Part, nn.Module, slot="quantizer"):
    """Interface of what an image tokenizer holds between its encoder and its decoder: one code a position.

    width: channels of the latents that it takes, and of the vectors that it gives back.
    codebook_size: number of different codes.
    """

    width: int
    codebook_size: int

    @abstractmethod
    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized: ...

    @abstractmethod
    def encode(self, latents: Float[Tensor, "*n c"]) -> Int[Tensor, "*n"]: ...

    @abstractmethod
    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]: ...

    def health(self) -> dict[str, float]:
        """Live figures for the progress line beyond the use of the codes."""
        return {}
