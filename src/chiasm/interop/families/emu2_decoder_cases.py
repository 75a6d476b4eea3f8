"""The replay of Emu2's pipeline: from a prompt to pixels."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from chiasm.decoders.guidance import Guidance
from chiasm.decoders.schedulers.diffusers_schedulers import EULER
from chiasm.interop.families.emu2_cases import case_model, drawn
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.diffusers_shape import added_shape, unet_shape, vae_shape
from chiasm.nn.generators import Generators

HEADS, UNET_GROUPS, VAE_GROUPS, SCALING = 4, 16, 8, 0.13025  # of the cases' networks, which no shape tells


@replays("emu2", "EmuVisualGeneration", without_effect={})
@torch.no_grad()
def replay_pipeline(case: Case) -> dict[str, Tensor]:
    """From a prompt to pixels, with the case's own noise."""
    model = case_model(case, _networks(case))
    decoder: Any = model.image_decoder
    vectors = [drawn(model, case.inputs[name], None, []) for name in ("text_ids", "negative_ids")]
    with_prompt, without = (rearrange(each, "n k c -> n 1 k c") for each in vectors)
    latents = decoder.denoising.sample(
        decoder.condition(with_prompt),
        decoder.condition(without),
        Generators(range(len(with_prompt))),
        steps=case.config["steps"],
        guidance=Guidance(case.config["gs"]),
        noise=case.inputs["noise"],
    )
    return {
        "prompt_embeds": torch.cat(vectors),
        "latents": latents,
        "image": rearrange(decoder.denoising.pixels(latents), "n c h w -> n h w c"),
    }


def _networks(case: Case) -> dict[str, Any]:
    def below(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): t for k, t in case.tensors.items() if k.startswith(prefix)}

    unet, vae = below("unet."), below("vae.")
    width = case.config["width"]  # of the vectors, and of their mean
    factor = 2 ** (len(vae_shape(vae, groups=VAE_GROUPS, scaling=SCALING)["block_out_channels"]) - 1)
    return {
        "unet": {
            **unet_shape(unet, heads=HEADS, groups=UNET_GROUPS),
            **added_shape(unet, width),
            "sample_size": case.inputs["noise"].shape[-1],
        },
        "vae": {
            **vae_shape(vae, groups=VAE_GROUPS, scaling=SCALING),
            "sample_size": factor * case.inputs["noise"].shape[-1],
        },
        "scheduler": EULER,
    }
