"""The VQGAN of open-muse, which LVM writes its visual sentences with."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.bounds import (
    CodebookSize,
    Count,
    Depth,
    Multiplier,
    Multipliers,
    Pixels,
    Weight,
    Width,
    WidthOrZero,
)
from chiasm.errors import RecipeError
from chiasm.tokenizers.autoencoder import QuantizedAutoencoder
from chiasm.tokenizers.convolutional import ConvDecoder, ConvEncoder
from chiasm.tokenizers.vqgan import Codebook


class MuseVQGAN(QuantizedAutoencoder, name="vqgan_muse"):
    """open-muse's VQGAN, the image tokenizer of LVM (arXiv 2312.00785), without its perceptual losses.

    Unlike taming's, it reads and writes pixels in [0, 1], and a level of the encoder attends only if it has two
    blocks or more.

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        depth: residual blocks a level.
        decoder_width: as the encoder's `width`; 0 = the same.
        decoder_multipliers: as the encoder's `multipliers`; [] = the same.
        decoder_depths: residual blocks of each of the decoder's levels, full resolution first; [] = one more than
            the encoder's.
        decoder_middle: residual blocks of the decoder at the resolution of the codes beyond two.
        attention_sizes: heights, in positions, of the levels with self-attention.
        middle_attention: self-attention at the resolution of the codes.
        convolved: whether a convolution stands at each change of resolution; else means and nearest neighbours.
        latent_width: channels that the encoder puts out.
        code_width: length of a code's vector.
        codebook_size: number of codes.
        codebook_weight: weight of the loss that moves the codes.
        commitment: weight of the loss that moves the latents.
    """

    def __init__(
        self,
        *,
        size: Pixels = 256,
        width: Width = 128,
        multipliers: Multipliers = [1, 2, 2, 4, 6],  # noqa: B006
        depth: Depth = 2,
        decoder_width: WidthOrZero = 0,
        decoder_multipliers: list[Multiplier] = [],  # noqa: B006
        decoder_depths: list[Depth] = [],  # noqa: B006
        decoder_middle: Count = 0,
        attention_sizes: list[Pixels] = [],  # noqa: B006
        middle_attention: bool = False,
        convolved: bool = True,
        latent_width: Width = 64,
        code_width: Width = 64,
        codebook_size: CodebookSize = 8192,
        codebook_weight: Weight = 0.25,
        commitment: Weight = 1.0,
    ):
        super().__init__(size=size, factor=2 ** (len(multipliers) - 1), codebook_size=codebook_size)
        attention = {level for level in range(len(multipliers)) if size // 2**level in attention_sizes}
        upwards, depths = decoder_multipliers or multipliers, decoder_depths or [depth + 1] * len(multipliers)
        if not len(multipliers) == len(upwards) == len(depths):
            raise RecipeError(
                "image_tokenizer 'vqgan_muse': multipliers, decoder_multipliers and decoder_depths must have one "
                "number for every level"
            )
        self.encoder = ConvEncoder(
            width,
            multipliers,
            depth,
            latent_width,
            attention if depth > 1 else set(),
            middle_attention,
            convolved=convolved,
        )
        self.decoder = ConvDecoder(
            decoder_width or width,
            upwards,
            depths,
            latent_width,
            {level for level in attention if depths[level] > 1},
            middle_attention,
            convolved=convolved,
            middle_blocks=decoder_middle,
        )
        self.quant_conv = nn.Conv2d(latent_width, code_width, 1)
        self.post_quant_conv = nn.Conv2d(code_width, latent_width, 1)
        self.quantize = Codebook(
            codebook_size, code_width, codebook_weight=codebook_weight, commitment=commitment
        )

    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        return rearrange(self.quant_conv(self.encoder(pixels)), "n c gh gw -> n gh gw c")

    def render(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        return self.decoder(self.post_quant_conv(rearrange(vectors, "n gh gw c -> n c gh gw"))).float()

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "size": 32,
            "width": 32,
            "multipliers": [1, 2, 2],
            "depth": 1,
            "latent_width": 8,
            "codebook_size": 16,
        }
