"""Latents of a KL autoencoder, as latent diffusion has them."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.diffusers_library import create
from chiasm.nn.losses import Loss
from chiasm.nn.training_noise import TrainingNoise
from chiasm.parts.bounds import Pixels, Weight
from chiasm.tokenizers import ContinuousTokenizer

SD_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
SDXL_VAE = SD_VAE | {"sample_size": 1024, "scaling_factor": 0.13025}
EXAMPLE_VAE = {
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}


class VAE(ContinuousTokenizer, name="vae"):
    """KL autoencoder (arXiv 2112.10752): diffusers' AutoencoderKL, as published or trained here.

    A vector is the mean of its latent's distribution, shifted and scaled as diffusion models want it. It needs
    `chiasm[diffusion]`.

    Args:
        size: height and width of the images in pixels.
        config: configuration of AutoencoderKL; the default is Stable Diffusion's.
        kl: weight of the Kullback-Leibler term in training.
    """

    inner: Any

    def __init__(self, *, size: Pixels = 512, config: dict[str, Any] = SD_VAE, kl: Weight = 1e-6):
        super().__init__()
        where = f"image_tokenizer {self.name!r}"
        self.inner = create("AutoencoderKL", config, where)
        full = self.inner.config
        if (full["in_channels"], full["out_channels"]) != (3, 3):
            raise RecipeError(
                f"{where}: images have 3 channels, but in_channels and out_channels are {full['in_channels']} and "
                f"{full['out_channels']}"
            )
        unknown = [key for key in ("latents_mean", "latents_std") if full.get(key) is not None]
        if unknown:
            raise RecipeError(
                f"{where} scales latents by scaling_factor and shift_factor, not by {unknown[0]}"
            )
        self.factor = 2 ** (len(full["block_out_channels"]) - 1)
        if size % self.factor:
            raise RecipeError(f"{where}: size {size} is no multiple of {self.factor}")
        self.size, self.width, self.kl = size, int(full["latent_channels"]), kl
        self.scaling, self.shift = float(full["scaling_factor"]), float(full["shift_factor"] or 0)

    @property
    def grid(self) -> tuple[int, int]:
        return self.size // self.factor, self.size // self.factor

    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        latents = (self.latents(pixels) - self.shift) * self.scaling
        return rearrange(latents, "n c h w -> n h w c")

    def decode(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        if vectors.ndim != 4 or vectors.shape[-1] != self.width:
            raise ChiasmError(
                f"vectors of shape {tuple(vectors.shape)} given to image_tokenizer {self.name!r}, "
                f"whose vectors have {self.width} numbers"
            )
        return self.pixels(rearrange(vectors, "n h w c -> n c h w") / self.scaling + self.shift).clamp(0, 1)

    @torch.no_grad()
    def latents(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """The means of the latents, in the network's own scale."""
        if any(side % self.factor for side in pixels.shape[-2:]):
            raise ChiasmError(
                f"image_tokenizer {self.name!r} takes images whose sides are multiples of {self.factor} pixels, "
                f"not {tuple(pixels.shape[-2:])}"
            )
        with torch.autocast(pixels.device.type, enabled=False):
            return self.posterior(pixels).mean  # type: ignore[no-any-return]

    def posterior(self, pixels: Float[Tensor, "n 3 h w"]) -> Any:
        """diffusers' distribution of the latents."""
        return self.inner.encode(2 * pixels.to(self.inner.dtype) - 1).latent_dist

    def pixels(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
        """Pixels of latents in the network's own scale; those of images lie in [0, 1]."""
        return self.inner.decode(latents.to(self.inner.dtype)).sample / 2 + 0.5  # type: ignore[no-any-return]

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """The absolute error of images in [-1, 1], and how far the latents are from a standard normal."""
        posterior = self.posterior(pixels)
        noise = TrainingNoise(pixels).normal(*posterior.mean.shape[1:]) if torch.is_grad_enabled() else 0
        rebuilt = self.pixels(posterior.mean + posterior.std * noise)
        return {
            "reconstruction": Loss.of(2 * (rebuilt - pixels).abs()),
            "kl": Loss.of(posterior.kl(), weight=self.kl),
        }

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32, "config": EXAMPLE_VAE}
