"""VQGAN whose codes are looked up by distance but drawn as directions: Janus' in transformers."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.bounds import CodebookSize, Depth, Multipliers, Pixels, Weight, Width
from chiasm.tokenizers.autoencoder import Quantized
from chiasm.tokenizers.vqgan import Autoencoder, Codebook


class UnitCodebook(Codebook):
    """`Codebook` whose vectors have length 1 for the decoder only."""

    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        quantized = super().forward(latents)
        vectors = self.vectors(quantized.codes)
        return quantized._replace(vectors=latents + (vectors - latents).detach())

    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
        return functional.normalize(self.embedding(codes), dim=-1)


class UnitVQGAN(Autoencoder, name="vqgan_unit"):
    """Janus' image tokenizer (arXiv 2410.13848) as transformers has it.

    Its own code looks up directions (`vqgan_cosine`); transformers looks up by distance and gives the decoder
    directions. The two agree where codes and latents have length 1.

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next. The lowest level
            has self-attention.
        depth: residual blocks a level.
        latent_width: channels that the encoder puts out.
        code_width: length of a code's vector.
        codebook_size: number of codes.
        codebook_weight: weight of the loss that moves the codes.
        commitment: weight of the loss that moves the latents.
    """

    def __init__(
        self,
        *,
        size: Pixels = 384,
        width: Width = 128,
        multipliers: Multipliers = [1, 1, 2, 2, 4],  # noqa: B006
        depth: Depth = 2,
        latent_width: Width = 256,
        code_width: Width = 8,
        codebook_size: CodebookSize = 16384,
        codebook_weight: Weight = 0.25,
        commitment: Weight = 1.0,
    ):
        super().__init__(
            size=size,
            width=width,
            multipliers=multipliers,
            depth=depth,
            attention_sizes=[size // 2 ** (len(multipliers) - 1)],
            latent_width=latent_width,
            code_width=code_width,
            codebook_size=codebook_size,
        )
        self.quantize = UnitCodebook(
            codebook_size, code_width, codebook_weight=codebook_weight, commitment=commitment
        )

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
