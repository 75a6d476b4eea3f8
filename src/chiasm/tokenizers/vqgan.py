"""VQGAN: a deep convolutional autoencoder round a codebook that is learnt by its gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from chiasm.errors import ChiasmError, RecipeError
from chiasm.losses import Loss
from chiasm.tokenizers import ImageTokenizer
from chiasm.tokenizers.convolutional import ConvDecoder, ConvEncoder, nearest


class Quantized(NamedTuple):
    """Latents replaced by codes.

    vectors: the codes' vectors; the gradient passes straight to the latents.
    losses: what trains the codebook and holds the latents to it, by name.
    """

    vectors: Float[Tensor, "n h w c"]
    codes: Int[Tensor, "n h w"]
    losses: dict[str, Loss]


class Quantizer(nn.Module):
    """Interface of a VQGAN's middle."""

    @abstractmethod
    def forward(self, latents: Float[Tensor, "n h w c"]) -> Quantized: ...

    @abstractmethod
    def encode(self, latents: Float[Tensor, "n h w c"]) -> Int[Tensor, "n h w"]: ...

    @abstractmethod
    def vectors(self, codes: Int[Tensor, "n h w"]) -> Float[Tensor, "n h w c"]: ...


class Autoencoder(ImageTokenizer):
    """What all VQGANs share; a part adds its options and its quantizer.

    Inside, pixels are in [-1, 1], as in the original.
    """

    quantize: Quantizer

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
    ):
        super().__init__()
        factor = 2 ** (len(multipliers) - 1)
        if size % factor:
            raise RecipeError(f"image_tokenizer {self.name!r}: size {size} is no multiple of {factor}")
        self.size, self.factor, self.codebook_size = size, factor, codebook_size
        attention = {level for level in range(len(multipliers)) if size // 2**level in attention_sizes}
        self.encoder = ConvEncoder(width, multipliers, depth, latent_width, attention)
        self.decoder = ConvDecoder(width, multipliers, depth, latent_width, attention)
        self.quant_conv = nn.Conv2d(latent_width, code_width, 1)
        self.post_quant_conv = nn.Conv2d(code_width, latent_width, 1)
        # A moving average of how often each code is used; only looked at, so it is not saved.
        self.frequency: Tensor
        self.register_buffer("frequency", torch.zeros(codebook_size), persistent=False)

    @property
    def grid(self) -> tuple[int, int]:
        return self.size // self.factor, self.size // self.factor

    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        """What is quantized, of pictures of any size that the levels can halve."""
        return rearrange(self.quant_conv(self.encoder(2 * pixels - 1)), "n c gh gw -> n gh gw c")

    def render(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        """Pixels of codes' vectors, not yet cut to [0, 1]."""
        return (
            self.decoder(self.post_quant_conv(rearrange(vectors, "n gh gw c -> n c gh gw"))).float() / 2 + 0.5
        )

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n gh gw"]:
        """Codes of pictures; raises ChiasmError when they are not of the tokenizer's size."""
        self._check(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            return self.quantize.encode(self.latents(pixels.float()))

    def decode(self, codes: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n 3 h w"]:
        """Pictures of codes, in [0, 1]; raises ChiasmError on codes out of range or of another grid."""
        if tuple(codes.shape[1:]) != self.grid:
            raise ChiasmError(f"codes of shape {tuple(codes.shape)} given to a tokenizer of grid {self.grid}")
        if codes.numel() and not (codes.min() >= 0 and codes.max() < self.codebook_size):
            raise ChiasmError(
                f"codes from {int(codes.min())} to {int(codes.max())} given to a tokenizer of "
                f"{self.codebook_size} codes (0 to {self.codebook_size - 1})"
            )
        return self.render(self.quantize.vectors(codes)).clamp(0, 1)

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Reconstruction, and what the quantizer adds."""
        self._check(pixels)
        latents = self.latents(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            quantized = self.quantize(latents.float())
        if self.training:
            uses = torch.bincount(quantized.codes.flatten(), minlength=self.codebook_size)
            self.frequency.lerp_(uses.to(self.frequency.dtype), 0.01)
        return {
            "reconstruction": self.reconstruction(self.render(quantized.vectors), pixels),
            **quantized.losses,
        }

    def reconstruction(self, made: Float[Tensor, "n 3 h w"], pixels: Float[Tensor, "n 3 h w"]) -> Loss:
        """The absolute error, of pixels in [-1, 1] as in the original."""
        return Loss.of(2 * (made - pixels).abs())

    def health(self) -> dict[str, float]:
        """Share of codes used of late, and perplexity of their use."""
        share = self.frequency / self.frequency.sum().clamp(min=1e-9)
        return {
            "codebook_use": float((share > 1e-3 / len(share)).float().mean()),
            "perplexity": float(torch.special.entr(share).sum().exp()),
        }

    def _check(self, pixels: Float[Tensor, "n 3 h w"]) -> None:
        if tuple(pixels.shape[1:]) != (3, self.size, self.size):
            raise ChiasmError(
                f"pictures of shape {tuple(pixels.shape[1:])} given to a tokenizer of {(3, self.size, self.size)}"
            )


class Codebook(Quantizer):
    """Nearest neighbours (taming's VectorQuantizer2). The losses are means over all elements of the latents.

    codebook_weight: of the loss that moves the codes. commitment: of the one that moves the latents.
    """

    def __init__(self, codebook_size: int, width: int, *, codebook_weight: float, commitment: float):
        super().__init__()
        self.codebook_weight, self.commitment = codebook_weight, commitment
        self.embedding = nn.Embedding(codebook_size, width)
        nn.init.uniform_(self.embedding.weight, -1 / codebook_size, 1 / codebook_size)

    def forward(self, latents: Float[Tensor, "n h w c"]) -> Quantized:
        codes = self.encode(latents)
        vectors = self.vectors(codes)
        losses = {
            "codebook": Loss.of((vectors - latents.detach()).square(), self.codebook_weight),
            "commitment": Loss.of((vectors.detach() - latents).square(), self.commitment),
        }
        return Quantized(latents + (vectors - latents).detach(), codes, losses)

    def encode(self, latents: Float[Tensor, "n h w c"]) -> Int[Tensor, "n h w"]:
        return nearest(latents.flatten(0, 2), self.embedding.weight).view(latents.shape[:3])

    def vectors(self, codes: Int[Tensor, "n h w"]) -> Float[Tensor, "n h w c"]:
        return self.embedding(codes)


class VQGAN(Autoencoder, name="vqgan"):
    """VQGAN (arXiv 2012.09841): taming-transformers' autoencoder, without its perceptual and adversarial losses.

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
        code_width: PositiveInt = 256,
        codebook_size: PositiveInt = 1024,
        codebook_weight: float = 0.25,
        commitment: float = 1.0,
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
        )
        self.quantize = Codebook(
            codebook_size, code_width, codebook_weight=codebook_weight, commitment=commitment
        )
