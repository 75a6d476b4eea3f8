"""VQGAN: a deep convolutional autoencoder round a quantizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.critics import Critic
from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import (
    Count,
    Depth,
    Kernel,
    Multiplier,
    Multipliers,
    Pixels,
    Weight,
    Width,
    WidthOrZero,
)
from chiasm.tokenizers.autoencoder import QuantizedAutoencoder
from chiasm.tokenizers.convolutional import ConvDecoder, ConvEncoder
from chiasm.tokenizers.quantizers import Quantizer


class VQGAN(QuantizedAutoencoder, name="vqgan"):
    """VQGAN (arXiv 2012.09841), the autoencoder of taming-transformers and of most that came after it.

    What the originals differ in is the quantizer and a few shapes: taming's and Chameleon's is `nearest`, that of
    LlamaGen and Janus `cosine`, of transformers' Janus `unit`, of Show-o `lfq_bitwise`, and of open-muse (LVM)
    `nearest`, with pixels in [0, 1].

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        depth: residual blocks a level, one number for all or one each.
        attention_sizes: heights, in positions, of the levels with self-attention.
        middle_attention: self-attention at the resolution of the codes.
        convolved: whether a convolution stands at each change of resolution; else means and nearest neighbours.
        latent_width: channels that the encoder puts out.
        kernel: side in positions of the convolutions before and behind the quantizer.
        quantizer: what makes codes of the latents.
        decoder_width: as `width`, for the decoder; 0 = the encoder's.
        decoder_multipliers: as `multipliers`, for the decoder; [] = the encoder's.
        decoder_depths: residual blocks of each of the decoder's levels, full resolution first; [] = one more than
            the encoder's.
        decoder_middle: residual blocks of the decoder at the resolution of the codes beyond two.
        decoder_attention_sizes: as `attention_sizes`, for the decoder; null = the encoder's.
        signed: whether encoder and decoder see pixels in [-1, 1]; else in [0, 1].
        absolute: weight of the absolute error of pixels in [-1, 1] in the reconstruction loss.
        squared: weight of their squared error in it.
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
    """

    def __init__(
        self,
        *,
        size: Pixels = 256,
        width: Width = 128,
        multipliers: Multipliers = [1, 1, 2, 2, 4],  # noqa: B006
        depth: Depth | list[Depth] = 2,
        attention_sizes: list[Pixels] = [16],  # noqa: B006
        middle_attention: bool = True,
        convolved: bool = True,
        latent_width: Width = 256,
        kernel: Kernel = 1,
        quantizer: Quantizer,
        decoder_width: WidthOrZero = 0,
        decoder_multipliers: list[Multiplier] = [],  # noqa: B006
        decoder_depths: list[Depth] = [],  # noqa: B006
        decoder_middle: Count = 0,
        decoder_attention_sizes: list[Pixels] | None = None,
        signed: bool = True,
        absolute: Weight = 1.0,
        squared: Weight = 0.0,
        critics: list[Critic] = [],  # noqa: B006
    ):
        levels = len(multipliers)
        super().__init__(size=size, factor=2 ** (levels - 1), quantizer=quantizer, critics=critics)
        if not (absolute or squared):
            raise RecipeError(f"image_tokenizer {self.name!r}: absolute and squared are 0; nothing is learnt")
        self.signed, self.absolute, self.squared = signed, absolute, squared
        depths = [depth] * levels if isinstance(depth, int) else list(depth)
        upwards = list(decoder_multipliers or multipliers)
        decoder_depths = decoder_depths or [blocks + 1 for blocks in depths]
        if not levels == len(depths) == len(upwards) == len(decoder_depths):
            raise RecipeError(
                f"image_tokenizer {self.name!r}: multipliers, depth, decoder_multipliers and decoder_depths must "
                f"have one number for every level; there are {levels} multipliers"
            )
        sizes = attention_sizes if decoder_attention_sizes is None else decoder_attention_sizes
        self.encoder = ConvEncoder(
            width,
            multipliers,
            depths,
            latent_width,
            self._levels(levels, attention_sizes),
            middle_attention,
            convolved=convolved,
        )
        self.decoder = ConvDecoder(
            decoder_width or width,
            upwards,
            decoder_depths,
            latent_width,
            self._levels(levels, sizes),
            middle_attention,
            convolved=convolved,
            middle_blocks=decoder_middle,
        )
        self.quant_conv = nn.Conv2d(latent_width, quantizer.width, kernel, 1, kernel // 2)
        self.post_quant_conv = nn.Conv2d(quantizer.width, latent_width, kernel, 1, kernel // 2)

    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        inner = 2 * pixels - 1 if self.signed else pixels
        return rearrange(self.quant_conv(self.encoder(inner)), "n c gh gw -> n gh gw c")

    def render(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        latents = self.post_quant_conv(rearrange(vectors, "n gh gw c -> n c gh gw"))
        pixels = self.decoder(latents).float()
        return pixels / 2 + 0.5 if self.signed else pixels

    def reconstruction(
        self, reconstructed: Float[Tensor, "*n 3 h w"], pixels: Float[Tensor, "*n 3 h w"]
    ) -> Loss:
        """The absolute and the squared error, by their weights, of pixels in [-1, 1] as in most originals."""
        error = 2 * (reconstructed - pixels)
        if not self.squared:
            return Loss.of(self.absolute * error.abs())
        return Loss.of(self.absolute * error.abs() + self.squared * error.square())

    def _levels(self, count: int, sizes: Sequence[int]) -> set[int]:
        """The levels whose resolution is one of the sizes."""
        return {level for level in range(count) if self.size // 2**level in sizes}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "size": 32,
            "width": 32,
            "multipliers": [1, 2, 2],
            "depth": 1,
            "latent_width": 8,
            "quantizer": {"type": "nearest", "codebook_size": 16, "width": 8},
        }
