"""Replays of diffusers' networks and schedulers (package 0.42.1) with our parts of their names."""

from __future__ import annotations

from typing import Any

import torch
from einops import einsum
from torch import Tensor, nn

from chiasm import parts
from chiasm.decoders.conditions import Condition
from chiasm.errors import CheckpointError, nearest
from chiasm.interop.mapping import NameMap, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import load_case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.diffusers_shape import added_shape, unet_shape, vae_shape

NAMES = NameMap(Rule("{rest...}", "inner.{rest...}"))
SCHEDULERS = {"DDIM": "ddim", "DDPM": "ddpm", "Euler": "euler", "PNDM": "pndm"}
# What the cases' networks have where their configs say nothing of it.
HEADS, UNET_GROUPS, VAE_GROUPS = 4, 16, 8


@replays(
    "diffusion_backbones",
    "UNet2DConditionModel",
    without_effect={"ntok": "an input says it too", "mask": "an input says it too"},
)
@torch.no_grad()
def replay_unet(case: Case) -> dict[str, Tensor]:
    """The noise that a network of Stable Diffusion's or SDXL's layout predicts."""
    kind, arguments, inputs = case.config["kind"], case.config["args"], case.inputs
    if kind not in ("sd", "sdxl"):
        raise CheckpointError(f"{case.name}: the kind of UNet is {kind!r}; known: sd, sdxl")
    config = unet_shape(case.tensors, heads=arguments.get("heads", HEADS), groups=UNET_GROUPS)
    _check_width(case, config["cross_attention_dim"], arguments["cross"])
    if kind == "sdxl":
        config |= added_shape(case.tensors, arguments["pooled"])
    channels, source = config["out_channels"], config["in_channels"] - config["out_channels"]
    unet = parts.build("denoiser", {"type": "unet", "config": config}, channels, source).eval()
    _load(unet, case)
    added: dict[str, Tensor] = {name: inputs[name] for name in ("text_embeds", "time_ids") if name in inputs}
    condition = Condition(inputs["context"], inputs.get("context_mask"), added or None)
    return {"noise_pred": unet(inputs["sample"], inputs["timestep"], condition)}


@replays("diffusion_backbones", "AutoencoderKL", without_effect={})
@torch.no_grad()
def replay_vae(case: Case) -> dict[str, Tensor]:
    """The moments of an image's latents, and the image of latents."""
    scaling = case.config["scaling"]
    config = vae_shape(case.tensors, groups=VAE_GROUPS, scaling=scaling)
    if config["block_out_channels"] != list(case.config["chs"]):
        raise CheckpointError(
            f"{case.name}: chs is {case.config['chs']}, but the tensors have {config['block_out_channels']}"
        )
    vae = parts.build("image_tokenizer", {"type": "vae", "size": case.config["res"], "config": config}).eval()
    _load(vae, case)
    posterior = vae.posterior((case.inputs["img"] + 1) / 2)
    return {
        "mean": posterior.mean,
        "logvar": posterior.logvar,
        "decoded": 2 * vae.pixels(case.inputs["latent"] / scaling * 0.2) - 1,
    }


@replays("diffusion_backbones", "schedulers with a toy denoiser", without_effect={})
@torch.no_grad()
def replay_scheduler(case: Case) -> dict[str, Tensor]:
    """A generation with a denoiser that mixes channels, and images at times of training."""
    kind, inputs = case.config["kind"], case.inputs
    if kind not in SCHEDULERS:
        raise CheckpointError(f"{case.name}: there is no scheduler {kind!r}{nearest(kind, SCHEDULERS)}")
    scheduler = parts.build("scheduler", {"type": SCHEDULERS[kind], "config": dict(case.config["config"])})
    sampler = scheduler.sampler(case.config["steps"])
    noises = iter(inputs.get("step_noise", ()))
    x, states = inputs["x_T"] * sampler.start, []
    for time in sampler.times:
        predicted = einsum(sampler.scaled(x, time).tanh(), inputs["w"], "n c h w, c d -> n d h w")
        x = sampler.step(predicted, time, x, lambda: next(noises))
        states.append(x)
    clean, noise, times = (inputs[name] for name in ("x0", "noise", "timesteps"))
    outputs = {
        "timesteps": sampler.times,
        "traj": torch.stack(states),
        "init_noise_sigma": torch.tensor(sampler.start),
        "add_noise": scheduler.noised(clean, noise, times),
        "velocity": scheduler.velocity(clean, noise, times),
    }
    sigmas = getattr(sampler.inner, "sigmas", None)
    return outputs if sigmas is None else {**outputs, "sigmas": sigmas}


def _load(module: nn.Module, case: Case) -> None:
    load_case(module, case, NAMES)


def _check_width(case: Case, own: Any, written: Any) -> None:
    if own != written:
        raise CheckpointError(f"{case.name}: cross is {written}, but the tensors attend to {own} channels")
