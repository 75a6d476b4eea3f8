"""Codes that are drawn, and learnt through a softmax, instead of looked up."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.nn.losses import Loss
from chiasm.parts.bounds import CodebookSize, Positive, Weight, Width
from chiasm.tokenizers.quantizers import Quantized, Quantizer


class Gumbel(Quantizer, name="gumbel"):
    """taming-transformers' GumbelVQ, after DALL-E's tokenizer (arXiv 2102.12092).

    In training codes are drawn with Gumbel noise, and the gradient is that of the softmax; encoding takes the
    likeliest.

    Args:
        codebook_size: number of codes.
        width: channels of the latents, and length of a code's vector.
        temperature: of the softmax in training.
        kl: weight of the divergence of the codes' distribution from the uniform one.
    """

    def __init__(
        self,
        *,
        codebook_size: CodebookSize = 8192,
        width: Width = 256,
        temperature: Positive = 1.0,
        kl: Weight = 5e-4,
    ):
        super().__init__()
        self.codebook_size, self.width = codebook_size, width
        self.temperature, self.kl = temperature, kl
        self.proj = nn.Conv2d(width, codebook_size, 1)
        self.embed = nn.Embedding(codebook_size, width)

    def logits(self, latents: Float[Tensor, "*n c"]) -> Float[Tensor, "*n k"]:
        # The original's convolution of 1 x 1, at however many places.
        return functional.linear(latents, self.proj.weight.flatten(1), self.proj.bias)

    def forward(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        noise = torch.zeros(*latents.shape[:-1], self.embed.num_embeddings, device=latents.device)
        return self.draw(latents, -noise.exponential_().log() if self.training else noise)

    def draw(self, latents: Float[Tensor, "*n c"], noise: Float[Tensor, "*n k"]) -> Quantized:
        """Quantize with given Gumbel(0, 1) noise."""
        logits = self.logits(latents)
        soft = ((logits + noise) / self.temperature).softmax(-1)
        codes = soft.argmax(-1)
        hard = functional.one_hot(codes, soft.shape[-1]).to(soft.dtype)
        vectors = (hard - soft.detach() + soft) @ self.embed.weight
        chances = logits.softmax(-1)
        divergence = (chances * torch.log(chances * chances.shape[-1] + 1e-10)).sum(-1)
        return Quantized(vectors, codes, {"divergence": Loss.of(divergence, self.kl)})

    def encode(self, latents: Float[Tensor, "*n c"]) -> Int[Tensor, "*n"]:
        return self.logits(latents).argmax(-1)

    def vectors(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
        return self.embed(codes)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"codebook_size": 16, "width": 8}
