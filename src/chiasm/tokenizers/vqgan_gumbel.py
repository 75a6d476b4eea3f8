"""VQGAN whose codes are drawn, and learnt through a softmax, instead of looked up."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.bounds import CodebookSize, Depth, Multipliers, Pixels, Positive, Weight, Width
from chiasm.critics import Critic
from chiasm.losses import Loss
from chiasm.tokenizers.autoencoder import Quantized, Quantizer
from chiasm.tokenizers.vqgan import Autoencoder


class GumbelCodebook(Quantizer):
    """Codes by logits; in training they are drawn with Gumbel noise, and the gradient is that of the softmax.

    temperature: of the softmax. kl: weight of the divergence of the codes' distribution from the uniform one.
    """

    def __init__(self, latent_width: int, codebook_size: int, width: int, *, temperature: float, kl: float):
        super().__init__()
        self.temperature, self.kl = temperature, kl
        self.proj = nn.Conv2d(latent_width, codebook_size, 1)
        self.embed = nn.Embedding(codebook_size, width)

    def logits(self, latents: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w k"]:
        return rearrange(self.proj(rearrange(latents, "n h w c -> n c h w")), "n k h w -> n h w k")

    def forward(self, latents: Float[Tensor, "n h w c"]) -> Quantized:
        shape = (*latents.shape[:3], self.embed.num_embeddings)
        noise = -torch.empty(shape, device=latents.device).exponential_().log()
        return self.draw(latents, noise if self.training else torch.zeros_like(noise))

    def draw(self, latents: Float[Tensor, "n h w c"], noise: Float[Tensor, "n h w k"]) -> Quantized:
        """Quantize with given Gumbel(0, 1) noise."""
        logits = self.logits(latents)
        soft = ((logits + noise) / self.temperature).softmax(-1)
        codes = soft.argmax(-1)
        hard = nn.functional.one_hot(codes, soft.shape[-1]).to(soft.dtype)
        vectors = (hard - soft.detach() + soft) @ self.embed.weight
        chances = logits.softmax(-1)
        divergence = (chances * torch.log(chances * chances.shape[-1] + 1e-10)).sum(-1)
        return Quantized(vectors, codes, {"divergence": Loss.of(divergence, self.kl)})

    def encode(self, latents: Float[Tensor, "n h w c"]) -> Int[Tensor, "n h w"]:
        return self.logits(latents).argmax(-1)

    def vectors(self, codes: Int[Tensor, "n h w"]) -> Float[Tensor, "n h w c"]:
        return self.embed(codes)


class GumbelVQGAN(Autoencoder, name="vqgan_gumbel"):
    """taming-transformers' GumbelVQ, after DALL-E's tokenizer (arXiv 2102.12092).

    Encoding takes the likeliest code; only training draws.

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        depth: residual blocks a level.
        attention_sizes: heights, in positions, of the levels with self-attention; the lowest has it always.
        latent_width: channels that the encoder puts out, and length of a code's vector.
        codebook_size: number of codes.
        convolved: whether a convolution stands at each change of resolution; else means and nearest neighbours.
        temperature: of the softmax in training.
        kl: weight of the divergence of the codes' distribution from the uniform one.
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
    """

    quantize: GumbelCodebook

    def __init__(
        self,
        *,
        size: Pixels = 256,
        width: Width = 128,
        multipliers: Multipliers = [1, 1, 2, 4],  # noqa: B006
        depth: Depth = 2,
        attention_sizes: list[Pixels] = [32],  # noqa: B006
        latent_width: Width = 256,
        codebook_size: CodebookSize = 8192,
        convolved: bool = True,
        temperature: Positive = 1.0,
        kl: Weight = 5e-4,
        critics: list[Critic] = [],  # noqa: B006
    ):
        super().__init__(
            size=size,
            width=width,
            multipliers=multipliers,
            depth=depth,
            attention_sizes=attention_sizes,
            latent_width=latent_width,
            code_width=latent_width,
            codebook_size=codebook_size,
            convolved=convolved,
            critics=critics,
        )
        self.quantize = GumbelCodebook(
            latent_width, codebook_size, latent_width, temperature=temperature, kl=kl
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
