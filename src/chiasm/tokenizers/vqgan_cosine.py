"""VQGAN with a codebook on the unit sphere: LlamaGen's image tokenizer."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.bounds import CodebookSize, Depth, Multiplier, Multipliers, Pixels, Weight, Width
from chiasm.critics import Critic
from chiasm.indivisible import Indivisible
from chiasm.losses import Loss
from chiasm.tokenizers.autoencoder import Quantized, Quantizer
from chiasm.tokenizers.convolutional import nearest
from chiasm.tokenizers.lookup_free import MEAN_USE
from chiasm.tokenizers.vqgan import Autoencoder, choice_entropy


class CosineCodebook(Quantizer, Indivisible):
    """Nearest direction; latents and codes have length 1, also for the decoder.

    commitment: weight of the loss that moves the latents. entropy: weight of the loss that makes single choices
    sure and their sum even.
    """

    def __init__(self, codebook_size: int, width: int, *, commitment: float, entropy: float):
        super().__init__()
        self.commitment, self.entropy = commitment, entropy
        self.embedding = nn.Embedding(codebook_size, width)
        nn.init.uniform_(self.embedding.weight, -1 / codebook_size, 1 / codebook_size)

    def forward(self, latents: Float[Tensor, "n h w c"]) -> Quantized:
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
            losses["entropy"] = choice_entropy(latents.flatten(0, 2), codebook, self.entropy)
        return Quantized(latents + (vectors - latents).detach(), codes, losses)

    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        return MEAN_USE if self.entropy else None

    def encode(self, latents: Float[Tensor, "n h w c"]) -> Int[Tensor, "n h w"]:
        flat = functional.normalize(latents, dim=-1).flatten(0, 2)
        return nearest(flat, functional.normalize(self.embedding.weight, dim=-1)).view(latents.shape[:3])

    def vectors(self, codes: Int[Tensor, "n h w"]) -> Float[Tensor, "n h w c"]:
        return functional.normalize(self.embedding(codes), dim=-1)


class CosineVQGAN(Autoencoder, name="vqgan_cosine"):
    """LlamaGen's image tokenizer (arXiv 2406.06525).

    Args:
        size: height and width of the pictures in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next. The lowest level
            has self-attention.
        decoder_multipliers: the same for the decoder, full resolution first; [] = as the encoder's.
        depth: residual blocks a level.
        latent_width: channels that the encoder puts out.
        code_width: length of a code's vector.
        codebook_size: number of codes.
        commitment: weight of the loss that moves the latents.
        entropy: weight of the loss that makes single choices sure and their sum even.
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
    """

    def __init__(
        self,
        *,
        size: Pixels = 256,
        width: Width = 128,
        multipliers: Multipliers = [1, 1, 2, 2, 4],  # noqa: B006
        decoder_multipliers: list[Multiplier] = [],  # noqa: B006
        depth: Depth = 2,
        latent_width: Width = 256,
        code_width: Width = 8,
        codebook_size: CodebookSize = 16384,
        commitment: Weight = 0.25,
        entropy: Weight = 0.0,
        critics: list[Critic] = [],  # noqa: B006
    ):
        super().__init__(
            size=size,
            width=width,
            multipliers=multipliers,
            decoder_multipliers=decoder_multipliers,
            depth=depth,
            attention_sizes=[size // 2 ** (len(multipliers) - 1)],
            latent_width=latent_width,
            code_width=code_width,
            codebook_size=codebook_size,
            critics=critics,
        )
        self.quantize = CosineCodebook(codebook_size, code_width, commitment=commitment, entropy=entropy)

    def reconstruction(self, made: Float[Tensor, "n 3 h w"], pixels: Float[Tensor, "n 3 h w"]) -> Loss:
        """The squared error, of pixels in [-1, 1] as in the original."""
        return Loss.of(4 * (made - pixels).square())

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
