"""VQGAN: a deep convolutional autoencoder round a codebook that is learnt by its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.bounds import Batches, CodebookSize, Depth, Multiplier, Multipliers, Pixels, Weight, Width
from chiasm.critics import Critic
from chiasm.errors import RecipeError
from chiasm.indivisible import Indivisible
from chiasm.losses import Loss
from chiasm.tokenizers.autoencoder import Quantized, QuantizedAutoencoder, Quantizer
from chiasm.tokenizers.convolutional import ConvDecoder, ConvEncoder, nearest
from chiasm.tokenizers.lookup_free import MEAN_USE
from chiasm.tokenizers.revival import Revival

SHARPNESS = 0.01  # temperature of the entropy loss's softmax over distances (LlamaGen's vq_model.py)


class Autoencoder(QuantizedAutoencoder):
    """What all VQGANs share; a part adds its options and its quantizer.

    Inside, pixels are in [-1, 1], as in the original.
    """

    def __init__(
        self,
        *,
        size: int,
        width: int,
        multipliers: Sequence[int],
        depth: int,
        attention_sizes: Sequence[int],
        latent_width: int,
        code_width: int,
        codebook_size: int,
        middle_attention: bool = True,
        decoder_multipliers: Sequence[int] = (),
        kernel: int = 1,
        convolved: bool = True,
        critics: Sequence[Critic] = (),
    ):
        super().__init__(
            size=size, factor=2 ** (len(multipliers) - 1), codebook_size=codebook_size, critics=critics
        )
        attention = {level for level in range(len(multipliers)) if size // 2**level in attention_sizes}
        self.encoder = ConvEncoder(
            width, multipliers, depth, latent_width, attention, middle_attention, convolved=convolved
        )
        upwards = decoder_multipliers or multipliers
        if len(upwards) != len(multipliers):
            raise RecipeError(
                f"image_tokenizer {self.name!r}: multipliers {list(multipliers)} and decoder_multipliers "
                f"{list(upwards)} must have one number for every level"
            )
        self.decoder = ConvDecoder(
            width, upwards, depth + 1, latent_width, attention, middle_attention, convolved=convolved
        )
        self.quant_conv = nn.Conv2d(latent_width, code_width, kernel, 1, kernel // 2)
        self.post_quant_conv = nn.Conv2d(code_width, latent_width, kernel, 1, kernel // 2)

    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        return rearrange(self.quant_conv(self.encoder(2 * pixels - 1)), "n c gh gw -> n gh gw c")

    def render(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        return (
            self.decoder(self.post_quant_conv(rearrange(vectors, "n gh gw c -> n c gh gw"))).float() / 2 + 0.5
        )


class Codebook(Quantizer, Indivisible):
    """Nearest neighbours (taming's VectorQuantizer2). The losses are means over all elements of the latents.

    codebook_weight: of the loss that moves the codes. commitment: of the one that moves the latents.
    entropy: of the one that makes single choices sure and their sum even.
    revive_after: steps without a use after which a code is given a new place; 0 = never.
    """

    def __init__(
        self,
        codebook_size: int,
        width: int,
        *,
        codebook_weight: float,
        commitment: float,
        entropy: float = 0.0,
        revive_after: int = 0,
    ):
        super().__init__()
        self.revival = Revival(codebook_size, revive_after) if revive_after else None
        self.codebook_weight, self.commitment, self.entropy = codebook_weight, commitment, entropy
        self.embedding = nn.Embedding(codebook_size, width)
        nn.init.uniform_(self.embedding.weight, -1 / codebook_size, 1 / codebook_size)

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


def choice_entropy(latents: Float[Tensor, "m c"], codebook: Float[Tensor, "k c"], weight: float) -> Loss:
    """Mean entropy of the choices minus the entropy of the mean choice, times the number of choices (LlamaGen)."""
    squares = latents.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * latents @ codebook.T
    chances = (-squares / SHARPNESS).softmax(-1)
    single = -(chances * (-squares / SHARPNESS).log_softmax(-1)).sum(-1)
    mean = chances.mean(0)
    count = torch.tensor(float(len(latents)), device=latents.device)
    return Loss(single.sum() + count * (mean * (mean + 1e-5).log()).sum(), count, weight)


class VQGAN(Autoencoder, name="vqgan"):
    """VQGAN (arXiv 2012.09841): taming-transformers' autoencoder.

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next.
        depth: residual blocks a level.
        attention_sizes: heights, in positions, of the levels with self-attention; the lowest has it always.
        latent_width: channels that the encoder puts out.
        code_width: length of a code's vector.
        codebook_size: number of codes.
        codebook_weight: weight of the loss that moves the codes. The original's 0.25 was meant for the
            other one; its checkpoints were trained with it here.
        commitment: weight of the loss that moves the latents.
        middle_attention: self-attention at the resolution of the codes.
        convolved: whether a convolution stands at each change of resolution; else means and nearest neighbours.
        decoder_multipliers: as `multipliers`, for the decoder; [] = as the encoder's.
        entropy: weight of the loss that makes single choices sure and their sum even (LlamaGen's).
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
        revive_after: steps without a use after which a code is given a new place; 0 = never, as the original.
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
        code_width: Width = 256,
        codebook_size: CodebookSize = 1024,
        codebook_weight: Weight = 0.25,
        commitment: Weight = 1.0,
        middle_attention: bool = True,
        convolved: bool = True,
        decoder_multipliers: list[Multiplier] = [],  # noqa: B006
        entropy: Weight = 0.0,
        critics: list[Critic] = [],  # noqa: B006
        revive_after: Batches = 0,
    ):
        super().__init__(
            size=size,
            width=width,
            multipliers=multipliers,
            depth=depth,
            attention_sizes=attention_sizes,
            latent_width=latent_width,
            code_width=code_width,
            codebook_size=codebook_size,
            middle_attention=middle_attention,
            decoder_multipliers=decoder_multipliers,
            convolved=convolved,
            critics=critics,
        )
        self.quantize = Codebook(
            codebook_size,
            code_width,
            codebook_weight=codebook_weight,
            commitment=commitment,
            entropy=entropy,
            revive_after=revive_after,
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
