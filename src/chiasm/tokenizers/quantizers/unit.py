"""A codebook that is looked up by distance, and handed to the decoder as directions: Janus' in transformers."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.tokenizers.quantizers import Quantized
from chiasm.tokenizers.quantizers.nearest import Nearest


class Unit(Nearest, name="unit"):
    """Janus' codebook (arXiv 2410.13848) as transformers has it: vectors have length 1 for the decoder only.

    Its own code looks up directions (`cosine`); transformers looks up by distance and gives the decoder directions.
    The two agree where codes and latents have length 1.
    """

    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        quantized = super().forward(latents)
        vectors = self.vectors(quantized.codes)
        return quantized._replace(vectors=latents + (vectors - latents).detach())

    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
        return functional.normalize(self.embedding(codes), dim=-1)
