"""What image tokenizers with an encoder, a quantizer and a decoder share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.critics import Critic, criticised
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.losses import Loss
from chiasm.nn.stepwise import Stepwise
from chiasm.tokenizers import ImageTokenizer, VideoTokenizer
from chiasm.tokenizers.quantizers import Quantized, Quantizer


class QuantizedAutoencoder(ImageTokenizer, Stepwise):
    """A network round a quantizer: it adds `latents` and `render`; `factor` is the pixels along a latent's side."""

    decoding = ("decoder", "post_quant_conv", "critics")
    quantize: Any  # a Quantizer; replays of the originals ask some for more than its interface

    def __init__(self, *, size: int, factor: int, quantizer: Quantizer, critics: Sequence[Critic] = ()):
        super().__init__()
        if size % factor:
            raise RecipeError(f"image_tokenizer {self.name!r}: size {size} is no multiple of {factor}")
        self.size, self.factor, self.codebook_size = size, factor, quantizer.codebook_size
        self.quantize = quantizer
        # A moving average of how often each code is used; only looked at, so it is not saved.
        self.frequency: Tensor
        self._uses: list[Tensor] = []  # of each code, since the last step
        self.register_buffer("frequency", torch.zeros(quantizer.codebook_size), persistent=False)
        self.critics = nn.ModuleList(critics)

    @property
    def grid(self) -> tuple[int, int]:
        return self.size // self.factor, self.size // self.factor

    @abstractmethod
    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        """What is quantized, of pictures of any size that the levels can halve."""

    @abstractmethod
    def render(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        """Pixels of codes' vectors, not yet cut to [0, 1]."""

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n gh gw"]:
        """Codes of pictures; raises ChiasmError when they are not of the tokenizer's size."""
        self.check_pixels(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            return self.quantize.encode(self.latents(pixels.float()))

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n 3 h w"]:
        """Pictures of codes, in [0, 1]; raises ChiasmError on codes out of range or of another grid."""
        self.check_codes(codes)
        return self.render(self.quantize.vectors(codes)).clamp(0, 1)

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Reconstruction, and what the quantizer adds."""
        self.check_pixels(pixels)
        quantized = self._quantized(self.latents(pixels))
        return self._judged(self.render(quantized.vectors), pixels) | quantized.losses

    def decoding_losses(
        self, codes: Int[Tensor, "n gh gw"], pixels: Float[Tensor, "n 3 h w"]
    ) -> dict[str, Loss]:
        """Reconstruction."""
        self.check_codes(codes)
        self.check_pixels(pixels)
        return self._judged(self.render(self.quantize.vectors(codes).detach()), pixels)

    def reconstruction(
        self, reconstructed: Float[Tensor, "*n 3 h w"], pixels: Float[Tensor, "*n 3 h w"]
    ) -> Loss:
        """The absolute error, of pixels in [-1, 1] as in most originals."""
        return Loss.of(2 * (reconstructed - pixels).abs())

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last layer."""
        return self.decoder.conv_out.weight  # type: ignore[union-attr, return-value]

    def _judged(
        self, reconstructed: Float[Tensor, "*n 3 h w"], pixels: Float[Tensor, "*n 3 h w"]
    ) -> dict[str, Loss]:
        flat, true = reconstructed.flatten(0, -4), pixels.flatten(0, -4)
        return criticised(
            self.critics, flat, true, self.reconstruction(reconstructed, pixels), self.last_layer
        )

    def _quantized(self, latents: Float[Tensor, "*n c"]) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            quantized = self.quantize(latents.float())
        self._count(quantized.codes)
        return quantized

    def health(self) -> dict[str, float]:
        """Share of codes used of late, and perplexity of their use."""
        share = self.frequency / self.frequency.sum().clamp(min=1e-9)
        return {
            "codebook_use": float((share > 1e-3 / len(share)).float().mean()),
            "perplexity": float(torch.special.entr(share).sum().exp()),
        } | self.quantize.health()

    def _count(self, codes: Int[Tensor, ...]) -> None:
        if self.training:
            self._uses.append(torch.bincount(codes.flatten(), minlength=self.codebook_size))

    def after_step(self) -> None:
        if self._uses:
            self.frequency.lerp_(torch.stack(self._uses).sum(0).to(self.frequency.dtype), 0.01)
        self.forget()

    def forget(self) -> None:
        self._uses = []


class VideoAutoencoder(QuantizedAutoencoder, VideoTokenizer):
    """A network adds `video_latents` and `render_video`; a picture is a video of the same frame `still` times."""

    still = 1

    @abstractmethod
    def video_latents(self, video: Float[Tensor, "n t 3 h w"]) -> Float[Tensor, "n u gh gw c"]:
        """What is quantized."""

    @abstractmethod
    def render_video(self, vectors: Float[Tensor, "n u gh gw c"]) -> Float[Tensor, "n t 3 h w"]:
        """Frames of codes' vectors, not yet cut to [0, 1]."""

    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        return self.video_latents(repeat(pixels, "n c h w -> n t c h w", t=self.still))[:, 0]

    def render(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        return self.render_video(vectors[:, None])[:, 0]

    @torch.no_grad()
    def encode_video(self, video: Float[Tensor, "n t 3 h w"]) -> Int[Tensor, "n u gh gw"]:
        """Codes of videos; raises ChiasmError when the frames are not of the tokenizer's size."""
        self.check_pixels(video.flatten(0, 1))
        with torch.autocast(video.device.type, enabled=False):
            return self.quantize.encode(self.video_latents(video.float()))

    def video_losses(self, video: Float[Tensor, "n t 3 h w"]) -> dict[str, Loss]:
        """Reconstruction, and what the quantizer adds; raises ChiasmError for a length that cannot be made."""
        self.check_pixels(video.flatten(0, 1))
        quantized = self._quantized(self.video_latents(video))
        reconstructed = self.render_video(quantized.vectors)
        if reconstructed.shape != video.shape:
            raise ChiasmError(
                f"clips of {video.shape[1]} frames given to image_tokenizer {self.name!r}, whose codes of them "
                f"stand for {reconstructed.shape[1]}; give it clips of so many"
            )
        return self._judged(reconstructed, video) | quantized.losses

    def video_decoding_losses(
        self, codes: Int[Tensor, "n u gh gw"], video: Float[Tensor, "n t 3 h w"]
    ) -> dict[str, Loss]:
        """Reconstruction."""
        self.check_codes(codes.flatten(0, 1))
        self.check_pixels(video.flatten(0, 1))
        return self._judged(self.render_video(self.quantize.vectors(codes).detach()), video)

    @torch.no_grad()
    def decode_video(self, codes: Int[Tensor, "n u gh gw"]) -> Float[Tensor, "n t 3 h w"]:
        """Videos of codes, in [0, 1]; raises ChiasmError on codes out of range or of another grid."""
        self.check_codes(codes.flatten(0, 1))
        return self.render_video(self.quantize.vectors(codes)).clamp(0, 1)
