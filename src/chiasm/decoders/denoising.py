"""A denoiser, an autoencoder of pixels and a scheduler: what decoders that diffuse are built of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.decoders.conditions import Condition
from chiasm.decoders.denoisers import PIXELS, Denoiser
from chiasm.decoders.guidance import Guidance
from chiasm.decoders.schedulers import Scheduler
from chiasm.errors import ChiasmError
from chiasm.nn.averaged_weights import AveragedWeights
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.nn.training_noise import TrainingNoise
from chiasm.tokenizers import ContinuousTokenizer


class Kept(NamedTuple):
    """What is put back of an image to change before each step: its latents, and 1 where they are, 0 where new ones
    are drawn. It takes a sampler whose noise begins with the deviation 1.
    """

    latents: Float[Tensor, "n c h w"]
    where: Float[Tensor, "n 1 h w"]


class Denoising(nn.Module):
    """Diffusion (arXiv 2006.11239) or flow, in the latents of an autoencoder (arXiv 2112.10752) or in pixels.

    Args:
        autoencoder: its `encode` makes the latents; None = images themselves, in [-1, 1].
        size: height and width of the images in pixels.
        average: decay of a moving average of the denoiser's weights, with which it generates; None = there is none.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        autoencoder: ContinuousTokenizer | None,
        scheduler: Scheduler,
        size: int,
        average: float | None = None,
    ):
        super().__init__()
        self.average = AveragedWeights(denoiser, average) if average is not None else None
        self.denoiser, self.autoencoder, self.scheduler, self.size = denoiser, autoencoder, scheduler, size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what is denoised."""
        if self.autoencoder is None:
            return PIXELS, self.size, self.size
        return self.autoencoder.width, *self.autoencoder.grid

    def latents(self, pixels: Tensor) -> Float[Tensor, "n c h w"]:
        """What is denoised of images; raises ChiasmError for images of another size.

        pixels: of the images, or the autoencoder's vectors of them.
        """
        if self.autoencoder is not None and self.autoencoder.is_encoded(pixels):
            return rearrange(pixels, "n h w c -> n c h w")
        if tuple(pixels.shape[-2:]) != (self.size, self.size):
            raise ChiasmError(
                f"images of {pixels.shape[-2]} x {pixels.shape[-1]} pixels given to a decoder of images of "
                f"{self.size} x {self.size}"
            )
        if self.autoencoder is None:
            return 2 * pixels - 1
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            return rearrange(self.autoencoder.encode(pixels), "n h w c -> n c h w")

    @torch.no_grad()
    def pixels(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
        """Images of what was denoised, in [0, 1]."""
        if self.autoencoder is None:
            return ((latents + 1) / 2).clamp(0, 1)
        return self.autoencoder.decode(rearrange(latents, "n c h w -> n h w c"))

    def loss(
        self,
        condition: Condition,
        clean: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "n c h w"],
        times: Tensor,
        min_snr: float | None = None,
    ) -> Loss:
        """The squared error of what the denoiser predicts at each image's time.

        min_snr: bound of the signal-to-noise ratio that weighs the images; None = all weigh the same.
        """
        predicted = self.denoiser(self.scheduler.noised(clean, noise, times), times, condition)
        target = self.scheduler.target(clean, noise, times)
        terms = (predicted.float() - target.float()).square()
        if min_snr is not None:
            weights = self.scheduler.min_snr_weights(times, min_snr)
            terms = terms * rearrange(weights, "n -> n 1 1 1")
        return Loss.of(terms)

    def drawn_loss(
        self,
        condition: Condition,
        clean: Float[Tensor, "n c h w"],
        random: TrainingNoise,
        *,
        min_snr: float | None = None,
        noise_offset: float = 0.0,
    ) -> Loss:
        """`loss` at random times with random noise.

        noise_offset: deviation of a noise that is the same at all places of a channel.
        """
        times = self.scheduler.times(random.uniform())
        noise = random.normal(*clean.shape[1:])
        if noise_offset:
            noise = noise + noise_offset * random.normal(clean.shape[1], 1, 1)
        return self.loss(condition, clean, noise.to(clean.dtype), times, min_snr)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        without: Condition | None,
        generators: Generators,
        *,
        steps: int,
        guidance: Guidance,
        noise: Float[Tensor, "n c h w"] | None = None,
        kept: Kept | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Latents of images. noise: that they begin with; None = the generators' own. kept: what is not drawn."""
        like = condition.tokens

        def normal() -> Tensor:
            return generators.normal(*self.shape).to(like.device, like.dtype)

        branches = guidance.branches(condition, without)
        stacked = Condition.stacked(branches)
        sampler, predict = self.scheduler.sampler(steps, like.device), self.average or self.denoiser
        x = (normal() if noise is None else noise) * sampler.start
        gates = self.denoiser.gates(len(sampler.times))
        for time, opening in zip(sampler.times, gates, strict=True):
            if kept is not None:
                noisy = self.scheduler.noised(kept.latents, normal(), time.expand(len(x)))
                x = kept.where * noisy + (1 - kept.where) * x
            rows = sampler.scaled(x, time).repeat(len(branches), 1, 1, 1)
            predicted = predict(rows, time, stacked._replace(gates=opening))
            x = sampler.step(guidance.combined(predicted.chunk(len(branches))), time, x, normal)
        return x
