"""VQGAN with lookup-free quantization."""

from __future__ import annotations

from typing import Any

from chiasm.bounds import Bits, Depth, Multipliers, Pixels, Weight, Width, WidthOrZero
from chiasm.tokenizers.lookup_free import ProjectedLookupFree
from chiasm.tokenizers.vqgan import Autoencoder


class LookupFreeVQGAN(Autoencoder, name="vqgan_lfq"):
    """VQGAN with lookup-free quantization (arXiv 2310.05737) as in vector-quantize-pytorch.

    Channel 0 is the highest bit of a code's number. See `lfq` for Open-MAGVIT2's own network.

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        depth: residual blocks a level.
        attention_sizes: heights, in positions, of the levels with self-attention; the lowest has it always.
        latent_width: channels that the encoder puts out.
        bits: of a code; there are 2^bits codes.
        code_width: channels between which and the bits is projected; 0 = one a bit, without projections.
        commitment: weight of the loss that draws the channels to -1 and 1.
        entropy: weight of the loss that makes single choices sure and their sum even.
        diversity: how much an even use counts in it beside sure choices.
        soft_clamp: bound of the projected channels; 0 = none.
        spherical: channels and codes have length 1 (binary spherical quantization, arXiv 2406.07548).
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
        bits: Bits = 10,
        code_width: WidthOrZero = 0,
        commitment: Weight = 0.25,
        entropy: Weight = 0.1,
        diversity: Weight = 1.0,
        soft_clamp: Weight = 0.0,
        spherical: bool = False,
    ):
        super().__init__(
            size=size,
            width=width,
            multipliers=multipliers,
            depth=depth,
            attention_sizes=attention_sizes,
            latent_width=latent_width,
            code_width=code_width or bits,
            codebook_size=2**bits,
        )
        self.quantize = ProjectedLookupFree(
            code_width or bits,
            bits,
            commitment=commitment,
            entropy=entropy,
            diversity=diversity,
            soft_clamp=soft_clamp,
            spherical=spherical,
        )

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1, "latent_width": 8, "bits": 4}
