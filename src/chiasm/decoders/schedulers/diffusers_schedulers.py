"""The schedulers of diffusers: DDIM, DDPM, Euler and PNDM on one schedule of noise."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.decoders.schedulers import Normal, Sampler, Scheduler
from chiasm.errors import RecipeError, reason
from chiasm.nn.diffusers_library import create

# Stable Diffusion's noise, the same in 1.5, 2 and XL.
STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
DDIM = {**STABLE_DIFFUSION, "clip_sample": False, "set_alpha_to_one": False}
PNDM = {**STABLE_DIFFUSION, "skip_prk_steps": True, "set_alpha_to_one": False}
EULER = {**STABLE_DIFFUSION, "timestep_spacing": "leading"}
DDPM = {**STABLE_DIFFUSION, "clip_sample": False}


class DiffusersScheduler(Scheduler):
    """A scheduler of diffusers. Training needs its products of alphas and its kind of prediction alone.

    Args:
        config: configuration of the class in diffusers.
    """

    library_class: ClassVar[str]

    def __init__(self, *, config: dict[str, Any]):
        with torch.device("cpu"):  # its tables are real where weights stand on the meta device
            self.inner = create(self.library_class, config, f"scheduler {self.name!r}")
        self.kind = str(self.inner.config["prediction_type"])
        if self.kind not in ("epsilon", "v_prediction", "sample"):
            raise RecipeError(
                f"scheduler {self.name!r}: prediction_type is {self.kind!r}; it must be epsilon, v_prediction or "
                "sample"
            )

    def sampler(self, steps: int, device: torch.device | str = "cpu") -> Sampler:
        return DiffusersSampler(self._begun(steps, device))

    def times(self, uniform: Float[Tensor, " n"]) -> Tensor:
        return (uniform * len(self.inner.alphas_cumprod)).long()

    def noised(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Tensor
    ) -> Float[Tensor, "n c h w"]:
        signal, deviation = self._shares(times, clean)
        return signal * clean + deviation * noise

    def target(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Tensor
    ) -> Float[Tensor, "n c h w"]:
        if self.kind == "v_prediction":
            return self.velocity(clean, noise, times)
        return clean if self.kind == "sample" else noise

    def velocity(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Tensor
    ) -> Float[Tensor, "n c h w"]:
        """The velocity v of images at their times (arXiv 2202.00512)."""
        signal, deviation = self._shares(times, clean)
        return signal * noise - deviation * clean

    def min_snr_weights(self, times: Tensor, bound: float) -> Float[Tensor, " n"]:
        alphas = self.inner.alphas_cumprod.to(times.device)[times]
        ratio = alphas / (1 - alphas)
        bounded = ratio.clamp(max=bound)
        if self.kind == "sample":
            return bounded
        return bounded / (ratio if self.kind == "epsilon" else ratio + 1)

    def _shares(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The shares of image and noise at times (arXiv 2006.11239)."""
        alphas = self.inner.alphas_cumprod.to(like.device, torch.float32)[times]
        shares = ((alphas**0.5), (1 - alphas) ** 0.5)
        signal, deviation = (each.view(-1, *[1] * (like.ndim - 1)).to(like.dtype) for each in shares)
        return signal, deviation

    def _begun(self, steps: int, device: torch.device | str) -> Any:
        inner = deepcopy(self.inner)  # a generation leaves its state in it
        try:
            with torch.device("cpu"):
                inner.set_timesteps(steps, device=device)
        except (ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
            raise RecipeError(
                f"scheduler {self.name!r} cannot generate in {steps} steps: {reason(error)}"
            ) from None
        return inner


class DDIMScheduler(DiffusersScheduler, name="ddim"):
    """DDIM (arXiv 2010.02502), without noise between the steps. It needs `chiasm[diffusion]`.

    Args:
        config: configuration of diffusers' DDIMScheduler; the default is Stable Diffusion's.
    """

    library_class = "DDIMScheduler"

    def __init__(self, *, config: dict[str, Any] = DDIM):
        super().__init__(config=config)


class PNDMScheduler(DiffusersScheduler, name="pndm"):
    """Pseudo numerical methods (PNDM, arXiv 2202.09778). It needs `chiasm[diffusion]`.

    Args:
        config: configuration of diffusers' PNDMScheduler; the default is Stable Diffusion's.
    """

    library_class = "PNDMScheduler"

    def __init__(self, *, config: dict[str, Any] = PNDM):
        super().__init__(config=config)


class EulerScheduler(DiffusersScheduler, name="euler"):
    """Euler steps of the probability flow (EDM, arXiv 2206.00364), as SDXL has them. It needs `chiasm[diffusion]`.

    Args:
        config: configuration of diffusers' EulerDiscreteScheduler; the default is SDXL's.
    """

    library_class = "EulerDiscreteScheduler"

    def __init__(self, *, config: dict[str, Any] = EULER):
        super().__init__(config=config)


class DDPMScheduler(DiffusersScheduler, name="ddpm"):
    """Ancestral steps with fresh noise in each (DDPM, arXiv 2006.11239). It needs `chiasm[diffusion]`.

    Args:
        config: configuration of diffusers' DDPMScheduler; the default is Stable Diffusion's.
    """

    library_class = "DDPMScheduler"

    def __init__(self, *, config: dict[str, Any] = DDPM):
        super().__init__(config=config)
        variance = self.inner.config["variance_type"]
        if variance not in ("fixed_small", "fixed_large"):
            raise RecipeError(
                f"scheduler 'ddpm': variance_type is {variance!r}; it must be fixed_small or fixed_large, for no "
                "denoiser here predicts variances"
            )

    def sampler(self, steps: int, device: torch.device | str = "cpu") -> Sampler:
        return AncestralSampler(self._begun(steps, device))


class DiffusersSampler:
    """A generation by a scheduler of diffusers that adds no noise."""

    def __init__(self, inner: Any):
        self.inner, self.times, self.start = inner, inner.timesteps, float(inner.init_noise_sigma)

    def scaled(self, x: Float[Tensor, "n c h w"], time: Tensor) -> Float[Tensor, "n c h w"]:
        return self.inner.scale_model_input(x, time)  # type: ignore[no-any-return]

    def step(
        self,
        predicted: Float[Tensor, "n c h w"],
        time: Tensor,
        x: Float[Tensor, "n c h w"],
        normal: Normal,
    ) -> Float[Tensor, "n c h w"]:
        return self.inner.step(predicted, time, x).prev_sample  # type: ignore[no-any-return]


class AncestralSampler(DiffusersSampler):
    """A generation by DDPM: formulas 6 and 7 of arXiv 2006.11239, with noise that is handed in."""

    def step(
        self,
        predicted: Float[Tensor, "n c h w"],
        time: Tensor,
        x: Float[Tensor, "n c h w"],
        normal: Normal,
    ) -> Float[Tensor, "n c h w"]:
        # diffusers' own step draws its noise itself; of it only the image that it expects is taken.
        unused = torch.Generator(x.device)
        clean = self.inner.step(predicted, time, x, generator=unused).pred_original_sample
        before = self.inner.previous_timestep(time)
        alphas = self.inner.alphas_cumprod.to(x.device)
        now = alphas[time]
        then = alphas[before] if before >= 0 else torch.ones_like(now)
        step = now / then
        mean = then**0.5 * (1 - step) / (1 - now) * clean + step**0.5 * (1 - then) / (1 - now) * x
        if time == 0:
            return mean
        return mean + self.inner._get_variance(time) ** 0.5 * normal()
