"""Open-MAGVIT2's image tokenizer."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.critics import Critic
from chiasm.parts.bounds import Depth, Multipliers, Pixels, Width
from chiasm.tokenizers.autoencoder import QuantizedAutoencoder
from chiasm.tokenizers.magvit import MagvitDecoder, MagvitEncoder, flat
from chiasm.tokenizers.quantizers import Quantizer


class OpenMagvit2(QuantizedAutoencoder, name="open_magvit2"):
    """Open-MAGVIT2's autoencoder (arXiv 2409.04410), whose quantizer is `lfq`: deep, without attention.

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        depth: residual blocks a level.
        quantizer: what makes codes of the latents; the encoder puts out as many channels as it takes.
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
    """

    def __init__(
        self,
        *,
        size: Pixels = 256,
        width: Width = 128,
        multipliers: Multipliers = [1, 1, 2, 2, 4],  # noqa: B006
        depth: Depth = 4,
        quantizer: Quantizer,
        critics: list[Critic] = [],  # noqa: B006
    ):
        super().__init__(size=size, factor=2 ** (len(multipliers) - 1), quantizer=quantizer, critics=critics)
        self.encoder = MagvitEncoder(width, multipliers, depth, quantizer.width, flat)
        self.decoder = MagvitDecoder(width, multipliers, depth, quantizer.width, flat)

    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        return rearrange(self.encoder(2 * pixels - 1), "n c gh gw -> n gh gw c")

    def render(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        return self.decoder(rearrange(vectors, "n gh gw c -> n c gh gw")).float() / 2 + 0.5

    @classmethod
    def example(cls) -> dict[str, Any]:
        codes = {"type": "lfq", "bits": 5}
        return {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1, "quantizer": codes}
