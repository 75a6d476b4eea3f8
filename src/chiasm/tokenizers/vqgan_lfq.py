"""VQGAN with lookup-free quantization."""

from __future__ import annotations

from pydantic import PositiveInt

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
    """

    def __init__(
        self,
        *,
        size: PositiveInt = 256,
        width: PositiveInt = 128,
        multipliers: list[int] = [1, 1, 2, 2, 4],  # noqa: B006
        depth: PositiveInt = 2,
        attention_sizes: list[int] = [16],  # noqa: B006
        latent_width: PositiveInt = 256,
        bits: PositiveInt = 10,
        code_width: int = 0,
        commitment: float = 0.25,
        entropy: float = 0.1,
        diversity: float = 1.0,
        soft_clamp: float = 0.0,
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
        )
