"""A codebook on the unit sphere: the nearest direction."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import CodebookSize, Weight, Width
from chiasm.tokenizers.codebook import new_codebook
from chiasm.tokenizers.convolutional import nearest
from chiasm.tokenizers.entropy import MEAN_USE, choice_entropy
from chiasm.tokenizers.quantizers import Quantized, Quantizer


class Cosine(Quantizer, Indivisible, name="cosine"):
    """LlamaGen's codebook (arXiv 2406.06525): the nearest direction; latents and codes have length 1.

    Args:
        codebook_size: number of codes.
        width: length of a code's vector.
        commitment: weight of the loss that moves the latents.
        entropy: weight of the loss that makes single choices sure and their sum even.
    """

    def __init__(
        self,
        *,
        codebook_size: CodebookSize = 16384,
        width: Width = 8,
        commitment: Weight = 0.25,
        entropy: Weight = 0.0,
    ):
        super().__init__()
        self.codebook_size, self.width = codebook_size, width
        self.commitment, self.entropy = commitment, entropy
        self.embedding = new_codebook(codebook_size, width)

    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        codes = self.encode(latents)
        latents, codebook = (
            functional.normalize(latents, dim=-1),
            functional.normalize(self.embedding.weight, dim=-1),
        )
        vectors = codebook[codes]
        losses = {
            "codebook": Loss.of((vectors - latents.detach()).square()),
            "commitment": Loss.of((vectors.detach() - latents).square(), self.commitment),
        }
        if self.entropy:
            losses["entropy"] = choice_entropy(latents.flatten(0, -2), codebook, self.entropy)
        return Quantized(latents + (vectors - latents).detach(), codes, losses)

    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        return MEAN_USE if self.entropy else None

    def encode(self, latents: Float[Tensor, "*n c"]) -> Int[Tensor, "*n"]:
        flat = functional.normalize(latents, dim=-1).flatten(0, -2)
        return nearest(flat, functional.normalize(self.embedding.weight, dim=-1)).view(latents.shape[:-1])

    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
        return functional.normalize(self.embedding(codes), dim=-1)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"codebook_size": 16}
