"""The UNet of Stable Diffusion and SDXL, from diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.decoders.conditions import Condition
from chiasm.decoders.denoisers import PIXELS, Denoiser
from chiasm.errors import RecipeError
from chiasm.nn.diffusers_library import create

SD15_UNET = {"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768}
SD2_UNET = {
    "sample_size": 64,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
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
EXAMPLE_UNET = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}
_AUTOENCODER = "; a network of latents (Stable Diffusion's) needs its autoencoder: {type: vae, ...}"
SIZES = 6  # numbers of `time_ids`
OTHER_INPUTS = ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "encoder_hid_dim")


class UNet(Denoiser, name="unet"):
    """diffusers' UNet2DConditionModel (Stable Diffusion, arXiv 2112.10752; SDXL, arXiv 2307.01952).

    It needs `chiasm[diffusion]`.

    Args:
        config: configuration of UNet2DConditionModel; the default is Stable Diffusion 1.5's.
    """

    inner: Any

    def __init__(self, channels: int, source_channels: int, *, config: dict[str, Any] = SD15_UNET):
        super().__init__()
        who = f"denoiser {self.name!r}"
        self.inner = create("UNet2DConditionModel", config, who)
        full = self.inner.config
        beside = f" and {source_channels} of the image to change" if source_channels else ""
        check_channels(full, who, channels, channels + source_channels, beside)
        check_inputs(full, f"{who} reads tokens, a pooled vector and sizes", additions=("text_time",))
        self.channels, self.token_width = channels, token_width(full, who)
        if full["attention_type"] != "default":
            raise RecipeError(
                f"denoiser 'unet' reads no boxes, but its attention_type is {full['attention_type']!r}; take "
                "denoiser 'grounded_unet', without an attention_type"
            )
        if full["addition_embed_type"] == "text_time":
            sizes = SIZES * full["addition_time_embed_dim"]
            self.pooled_width = full["projection_class_embeddings_input_dim"] - sizes

    def forward(
        self, x: Float[Tensor, "n c h w"], times: Tensor, condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        if condition.source is not None:
            x = torch.cat([x, condition.source.to(x.dtype)], 1)
        result = self.inner(
            x,
            times,
            encoder_hidden_states=condition.tokens,
            encoder_attention_mask=condition.mask,
            added_cond_kwargs=condition.added,
        )
        return result.sample  # type: ignore[no-any-return]

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"config": {**EXAMPLE_UNET, "cross_attention_dim": 24, "in_channels": 3, "out_channels": 3}}


def check_channels(config: Mapping[str, Any], who: str, channels: int, read: int, beside: str) -> None:
    """Raises RecipeError for a UNet of other channels than these.

    who: begins messages. channels: of the images or latents. read: with all that stands beside them, `beside`.
    """
    if (config["in_channels"], config["out_channels"]) != (read, channels):
        raise RecipeError(
            f"{who} has in_channels {config['in_channels']} and out_channels {config['out_channels']}, but the "
            f"images have {channels} channels{beside}: they must be {read} and {channels}"
            f"{_AUTOENCODER if channels == PIXELS else ''}"
        )


def check_inputs(config: Mapping[str, Any], reads: str, additions: Sequence[str] = ()) -> None:
    """Raises RecipeError for a UNet that asks for inputs of which no condition has any.

    reads: who reads what, which begins the message. additions: values of addition_embed_type that it can take.
    """
    other = [name for name in OTHER_INPUTS if config.get(name) is not None]
    addition = config["addition_embed_type"]
    if other or addition not in (None, *additions):
        raise RecipeError(
            f"{reads}; its configuration asks for other inputs: "
            f"{', '.join(other) or f'addition_embed_type {addition}'}"
        )


def token_width(config: Mapping[str, Any], who: str) -> int:
    """Of the tokens that a UNet attends to; raises RecipeError where its blocks differ."""
    width = config["cross_attention_dim"]
    if not isinstance(width, int):
        raise RecipeError(f"{who}: cross_attention_dim is {width}; it must be one number")
    return width
