"""Pictures by latent diffusion, with the networks of diffusers: what decoders of this kind share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from chiasm.errors import RecipeError, reason
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss

LATENT = 8  # pixels along the side of a latent

# Stable Diffusion's noise, the same in 1.5 and XL.
DDIM = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD15_UNET = {"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
SDXL_VAE = VAE | {"sample_size": 1024, "scaling_factor": 0.13025}
# Small networks for the examples of decoders.
EXAMPLE_VAE = {
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
EXAMPLE_UNET = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}


class Condition(NamedTuple):
    """What a picture is drawn after.

    tokens: that the network looks at. mask: False where there is none; None = all are meant.
    added: further inputs of the network, by diffusers' names.
    """

    tokens: Float[Tensor, "n k d"]
    mask: Bool[Tensor, "n k"] | None = None
    added: dict[str, Tensor] | None = None

    def doubled(self, other: Condition) -> Condition:
        """This condition's rows behind the other's."""
        mask = None
        if self.mask is not None and other.mask is not None:
            mask = torch.cat([other.mask, self.mask])
        added = None
        if self.added is not None and other.added is not None:
            added = {name: torch.cat([other.added[name], tensor]) for name, tensor in self.added.items()}
        return Condition(torch.cat([other.tokens, self.tokens]), mask, added)

    def where(self, chosen: Bool[Tensor, " n"], other: Condition) -> Condition:
        """The other's rows where they are chosen, else this condition's."""

        def mixed(one: Tensor, two: Tensor) -> Tensor:
            return torch.where(chosen.view(-1, *[1] * (one.ndim - 1)), two, one)

        mask = mixed(self.mask, other.mask) if self.mask is not None and other.mask is not None else None
        added = None
        if self.added is not None and other.added is not None:
            added = {name: mixed(tensor, other.added[name]) for name, tensor in self.added.items()}
        return Condition(mixed(self.tokens, other.tokens), mask, added)


class LatentDiffusion(nn.Module):
    """A network that predicts noise, an autoencoder of pixels, and DDIM (arXiv 2010.02502) between them.

    Args:
        unet: configuration of diffusers' UNet2DConditionModel.
        vae: configuration of diffusers' AutoencoderKL.
        scheduler: configuration of diffusers' DDIMScheduler.
    """

    unet: Any
    vae: Any
    scheduler: Any

    def __init__(self, unet: Mapping[str, Any], vae: Mapping[str, Any], scheduler: Mapping[str, Any]):
        super().__init__()
        try:
            from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        except ImportError:
            raise RecipeError(
                "decoders that draw by diffusion need diffusers: pip install 'chiasm[diffusion]'"
            ) from None
        try:
            self.unet = UNet2DConditionModel(**_plain(unet))
            self.vae = AutoencoderKL(**_plain(vae))
            self.scheduler = DDIMScheduler(**_plain(scheduler))
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"diffusers refuses the configuration of a diffusion decoder: {reason(error)}"
            ) from None

    @property
    def token_width(self) -> int:
        """Of what the network looks at."""
        return int(self.unet.config["cross_attention_dim"])

    def noise(self, count: int, size: int, generators: Generators | None) -> Float[Tensor, "n c h w"]:
        """Where `count` pictures of `size` pixels begin: each by its own seed; without generators, from 0 on."""
        shape = (self.unet.config["in_channels"], size // LATENT, size // LATENT)
        noise = (generators or Generators(range(count))).for_pixels().normal(*shape)
        return noise.to(self.unet.device, self.unet.dtype)

    def loss(self, condition: Condition, pixels: Float[Tensor, "n 3 h w"]) -> Loss:
        """The squared error of the noise in latents of images, at random times (DDPM, arXiv 2006.11239)."""
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            mean = self.vae.encode(2 * pixels.to(self.vae.dtype) - 1).latent_dist.mean
        latents = mean * self.vae.config["scaling_factor"]
        noise = torch.randn_like(latents)
        steps = self.scheduler.config["num_train_timesteps"]
        times = torch.randint(steps, (len(latents),), device=latents.device)
        predicted = self.unet(
            self.scheduler.add_noise(latents, noise, times),
            times,
            encoder_hidden_states=condition.tokens,
            encoder_attention_mask=condition.mask,
            added_cond_kwargs=condition.added,
        ).sample
        return Loss.of((predicted.float() - self._target(latents, noise, times).float()).square())

    def _target(
        self, latents: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Int[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """What the network predicts, as its scheduler has it."""
        kind = self.scheduler.config["prediction_type"]
        if kind == "v_prediction":
            return self.scheduler.get_velocity(latents, noise, times)
        return latents if kind == "sample" else noise

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        empty: Condition,
        noise: Float[Tensor, "n c h w"],
        *,
        steps: int,
        guidance: float,
    ) -> Float[Tensor, "n c h w"]:
        """Latents of pictures, in the autoencoder's scale.

        guidance: 1 = none, else `without + guidance * (with - without)` the condition, in the predicted noise.
        """
        both = condition.doubled(empty) if guidance != 1 else condition
        latents = noise * self.scheduler.init_noise_sigma
        self.scheduler.set_timesteps(steps, device=noise.device)
        for time in self.scheduler.timesteps:
            rows = torch.cat([latents, latents]) if guidance != 1 else latents
            predicted = self.unet(
                self.scheduler.scale_model_input(rows, time),
                time,
                encoder_hidden_states=both.tokens,
                encoder_attention_mask=both.mask,
                added_cond_kwargs=both.added,
            ).sample
            if guidance != 1:
                without, within = predicted.chunk(2)
                predicted = without + guidance * (within - without)
            latents = self.scheduler.step(predicted, time, latents).prev_sample
        return latents / self.vae.config["scaling_factor"]

    @torch.no_grad()
    def pixels(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        """Pixels of latents in the autoencoder's scale; those of pictures lie in [0, 1]."""
        return self.vae.decode(latents).sample / 2 + 0.5


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what diffusers notes about itself."""
    return {key: value for key, value in config.items() if not key.startswith("_")}
