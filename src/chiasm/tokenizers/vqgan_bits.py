"""Show-o's image tokenizer."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.bounds import Bits, Depth, Multipliers, Pixels, Weight, Width
from chiasm.errors import RecipeError
from chiasm.tokenizers.autoencoder import QuantizedAutoencoder
from chiasm.tokenizers.convolutional import ConvDecoder, ConvEncoder
from chiasm.tokenizers.lookup_free import BitwiseLookupFree


class BitwiseVQGAN(QuantizedAutoencoder, name="vqgan_bits"):
    """Show-o's "MAGVIT-v2" (arXiv 2408.12528): a VQGAN with lookup-free quantization, its bits' entropies apart.

    Encoder and decoder have shapes of their own. Channel 0 is the highest bit of a code's number. The original's
    training is not public; the quantizer's losses are.

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        decoder_multipliers: the same for the decoder, full resolution first; as many.
        depths: residual blocks of each of the encoder's levels.
        decoder_depths: residual blocks of each of the decoder's levels, full resolution first.
        attention_sizes: heights, in positions, of the levels with self-attention; the lowest has it always.
        bits: of a code; there are 2^bits codes.
        commitment: weight of the loss that draws the channels to -1 and 1.
        entropy: weight of the loss that makes each bit sure in a place and even over all.
        repeated: share of the commitment that the original adds again, where it weakens the gradient.
    """

    def __init__(
        self,
        *,
        size: Pixels = 256,
        width: Width = 128,
        multipliers: Multipliers = [1, 2, 2, 4, 4],  # noqa: B006
        decoder_multipliers: Multipliers = [1, 1, 2, 2, 4],  # noqa: B006
        depths: list[Depth] = [4, 3, 4, 3, 4],  # noqa: B006
        decoder_depths: list[Depth] = [4, 4, 3, 4, 3],  # noqa: B006
        attention_sizes: list[Pixels] = [],  # noqa: B006
        bits: Bits = 13,
        commitment: Weight = 0.1,
        entropy: Weight = 0.1,
        repeated: Weight = 0.25,
    ):
        levels = len(multipliers)
        if not levels == len(decoder_multipliers) == len(depths) == len(decoder_depths):
            raise RecipeError(
                "image_tokenizer 'vqgan_bits': multipliers, decoder_multipliers, depths and decoder_depths must "
                "have one number for every level"
            )
        super().__init__(size=size, factor=2 ** (levels - 1), codebook_size=2**bits)
        attention = {level for level in range(levels) if size // 2**level in attention_sizes}
        self.encoder = ConvEncoder(width, multipliers, depths, bits, attention)
        self.decoder = ConvDecoder(width, decoder_multipliers, decoder_depths, bits, attention)
        self.quant_conv = nn.Conv2d(bits, bits, 1)
        self.post_quant_conv = nn.Conv2d(bits, bits, 1)
        self.quantize = BitwiseLookupFree(bits, commitment=commitment, entropy=entropy, repeated=repeated)

    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        return rearrange(self.quant_conv(self.encoder(2 * pixels - 1)), "n c gh gw -> n gh gw c")

    def render(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        codes = self.post_quant_conv(rearrange(vectors, "n gh gw c -> n c gh gw"))
        return self.decoder(codes).float() / 2 + 0.5

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "size": 32,
            "width": 32,
            "multipliers": [1, 1, 1],
            "bits": 4,
            "depths": [1, 1, 1],
            "decoder_multipliers": [1, 1, 2],
            "decoder_depths": [1, 1, 1],
        }
