"""A codebook that is learnt by its gradient: the nearest code."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Batches, CodebookSize, Weight, Width
from chiasm.tokenizers.codebook import new_codebook
from chiasm.tokenizers.convolutional import nearest
from chiasm.tokenizers.entropy import MEAN_USE, choice_entropy
from chiasm.tokenizers.quantizers import Quantized, Quantizer
from chiasm.tokenizers.revival import Revival


class Nearest(Quantizer, Indivisible, name="nearest"):
    """VQGAN's codebook (taming-transformers' VectorQuantizer2, arXiv 2012.09841): the nearest code.

    The losses are means over all elements of the latents.

    Args:
        codebook_size: number of codes.
        width: length of a code's vector.
        codebook_weight: weight of the loss that moves the codes. The original's 0.25 was meant for the
            other one; its checkpoints were trained with it here.
        commitment: weight of the loss that moves the latents.
        entropy: weight of the loss that makes single choices sure and their sum even (LlamaGen's).
        revive_after: steps without a use after which a code is given a new place; 0 = never, as the original.
    """

    def __init__(
        self,
        *,
        codebook_size: CodebookSize = 1024,
        width: Width = 256,
        codebook_weight: Weight = 0.25,
        commitment: Weight = 1.0,
        entropy: Weight = 0.0,
        revive_after: Batches = 0,
    ):
        super().__init__()
        self.codebook_size, self.width = codebook_size, width
        self.revival = Revival(codebook_size, revive_after) if revive_after else None
        self.codebook_weight, self.commitment, self.entropy = codebook_weight, commitment, entropy
        self.embedding = new_codebook(codebook_size, width)

    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        codes = self.encode(latents)
        if self.revival is not None and self.training:
            self.revival(self.embedding.weight, latents.flatten(0, -2), codes.flatten())
        vectors = self.embedding(codes)
        losses = {
            "codebook": Loss.of((vectors - latents.detach()).square(), self.codebook_weight),
            "commitment": Loss.of((vectors.detach() - latents).square(), self.commitment),
        }
        if self.entropy:
            losses["entropy"] = choice_entropy(latents.flatten(0, -2), self.embedding.weight, self.entropy)
        return Quantized(latents + (vectors - latents).detach(), codes, losses)

    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        return MEAN_USE if self.entropy else None

    def encode(self, latents: Float[Tensor, "*n c"]) -> Int[Tensor, "*n"]:
        return nearest(latents.flatten(0, -2), self.embedding.weight).view(latents.shape[:-1])

    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
        return self.embedding(codes)

    def health(self) -> dict[str, float]:
        return {} if self.revival is None else {"revived": float(self.revival.revived)}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"codebook_size": 16, "width": 8}
