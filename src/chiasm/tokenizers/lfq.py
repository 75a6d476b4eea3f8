"""Open-MAGVIT2's image tokenizer."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.bounds import Bits, Depth, Multipliers, Pixels, Weight, Width
from chiasm.critics import Critic
from chiasm.tokenizers.autoencoder import QuantizedAutoencoder
from chiasm.tokenizers.lookup_free import LookupFree
from chiasm.tokenizers.magvit import MagvitDecoder, MagvitEncoder, flat


class LookupFreeTokenizer(QuantizedAutoencoder, name="lfq"):
    """Open-MAGVIT2's image tokenizer (arXiv 2409.04410).

    Lookup-free quantization: the code is the signs of `bits` channels, channel 0 the lowest bit of its number.
    `chiasm.tokenizers.lookup_free.split_code` cuts large codes in two.

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        depth: residual blocks a level.
        bits: of a code; there are 2^bits codes.
        commitment: weight of the loss that draws the channels to -1 and 1.
        entropy: weight of the loss that makes single choices sure and their sum even.
        sure: share of the single choices' entropy in it.
        even: share of the mean choice's entropy in it.
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
    """

    def __init__(
        self,
        *,
        size: Pixels = 256,
        width: Width = 128,
        multipliers: Multipliers = [1, 1, 2, 2, 4],  # noqa: B006
        depth: Depth = 4,
        bits: Bits = 18,
        commitment: Weight = 0.25,
        entropy: Weight = 0.1,
        sure: Weight = 1.0,
        even: Weight = 1.0,
        critics: list[Critic] = [],  # noqa: B006
    ):
        super().__init__(
            size=size, factor=2 ** (len(multipliers) - 1), codebook_size=2**bits, critics=critics
        )
        self.encoder = MagvitEncoder(width, multipliers, depth, bits, flat)
        self.decoder = MagvitDecoder(width, multipliers, depth, bits, flat)
        self.quantize = LookupFree(bits, commitment=commitment, entropy=entropy, sure=sure, even=even)

    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        return rearrange(self.encoder(2 * pixels - 1), "n c gh gw -> n gh gw c")

    def render(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        return self.decoder(rearrange(vectors, "n gh gw c -> n c gh gw")).float() / 2 + 0.5

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1, "bits": 5}
