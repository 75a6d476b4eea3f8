"""The decoder `diffusion` beside diffusers' own pipeline: the same networks, noise, steps and guidance."""

from __future__ import annotations

from typing import Any

import torch
from taking_turns import compared

from chiasm.inference.drawing import decode
from chiasm.model import Model
from chiasm.nn.generators import Generators
from chiasm.recipe import load_recipe

TOKENS, TOKEN_WIDTH = 16, 64
PIPELINES = {"ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler", "pndm": "PNDMScheduler"}


def against_pipeline(
    scheduler: str, width: int, size: int, steps: int, pictures: int, rounds: int
) -> dict[str, Any]:
    """Images of `size` pixels of vectors, led away from zeros. width: of the network's first level."""
    model = _decoder(scheduler, width, size, steps)
    decoder = model.image_decoder
    target = torch.randn(pictures, 1, TOKENS, TOKEN_WIDTH, generator=torch.Generator().manual_seed(0))
    pipeline = _pipeline(decoder, scheduler)
    noise = Generators(range(pictures)).for_pixels().normal(*decoder.denoising.shape)

    def ours() -> tuple[torch.Tensor, torch.Tensor]:
        return target, decode(model, target, Generators(range(pictures)))

    def theirs() -> tuple[torch.Tensor, torch.Tensor]:
        embeddings = target.flatten(1, 2)
        with torch.inference_mode():
            images = pipeline(
                prompt_embeds=embeddings,
                negative_prompt_embeds=torch.zeros_like(embeddings),
                latents=noise,
                num_inference_steps=steps,
                guidance_scale=decoder.guidance.scale,
                output_type="pt",
            ).images
        return target, images

    result = compared({"chiasm": ours, "diffusers": theirs}, pictures, rounds)
    result["parameters"] = sum(parameter.numel() for parameter in decoder.parameters())
    return result


def _decoder(scheduler: str, width: int, size: int, steps: int) -> Any:
    kinds = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    unet = {
        "sample_size": size // 8,
        "block_out_channels": [width, 2 * width, 2 * width],
        "down_block_types": kinds,
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "cross_attention_dim": TOKEN_WIDTH,
    }
    vae = {
        "block_out_channels": [32, 32, 64, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    spec = {
        "type": "diffusion",
        "size": size,
        "autoencoder": {"type": "vae", "size": size, "config": vae},
        "denoiser": {"type": "unet", "config": unet},
        "conditioner": {"type": "vectors"},
        "scheduler": {"type": scheduler},
        "steps": steps,
    }
    recipe = load_recipe({"name": "benchmark", "model": {"image_decoder": spec}, "data": {}, "stages": []})
    return Model(recipe.model).eval()


def _pipeline(decoder: Any, scheduler: str) -> Any:
    import diffusers

    inner = decoder.denoising
    absent = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipeline = diffusers.StableDiffusionPipeline(
        unet=inner.denoiser.inner,
        vae=inner.autoencoder.inner,
        scheduler=getattr(diffusers, PIPELINES[scheduler])(**inner.scheduler.spec["config"]),
        requires_safety_checker=False,
        **absent,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
