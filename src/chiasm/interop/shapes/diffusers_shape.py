"""The configuration of diffusers' networks from the shapes of their tensors, for parity cases without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def unet_shape(tensors: Mapping[str, Tensor], *, heads: int, groups: int) -> dict[str, Any]:
    """Of UNet2DConditionModel; the arguments do not follow from shapes."""
    blocks = _count(tensors, "down_blocks.")
    crossed = [f"down_blocks.{i}.attentions.0.proj_in.weight" in tensors for i in range(blocks)]
    first = crossed.index(True)
    attention = f"down_blocks.{first}.attentions.0."
    middle = max(1, _count(tensors, "mid_block.attentions.0.transformer_blocks."))  # as the last block's
    config: dict[str, Any] = {
        "block_out_channels": _channels(tensors, "down_blocks.", blocks),
        "layers_per_block": _count(tensors, "down_blocks.0.resnets."),
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in crossed],
        "up_block_types": ["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(crossed)],
        "transformer_layers_per_block": [
            _count(tensors, f"down_blocks.{i}.attentions.0.transformer_blocks.") or middle
            for i in range(blocks)
        ],
        "cross_attention_dim": tensors[attention + "transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "use_linear_projection": tensors[attention + "proj_in.weight"].ndim == 2,
        "attention_head_dim": heads,
        "norm_num_groups": groups,
        "in_channels": tensors["conv_in.weight"].shape[1],
        "out_channels": tensors["conv_out.weight"].shape[0],
    }
    return config


def added_shape(tensors: Mapping[str, Tensor], pooled: int) -> dict[str, Any]:
    """What SDXL's UNet has more: a pooled vector of `pooled` channels and six numbers."""
    width = tensors["add_embedding.linear_1.weight"].shape[1]
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (width - pooled) // 6,
        "projection_class_embeddings_input_dim": width,
    }


def vae_shape(tensors: Mapping[str, Tensor], *, groups: int, scaling: float) -> dict[str, Any]:
    """Of AutoencoderKL; the arguments do not follow from shapes."""
    blocks = _count(tensors, "encoder.down_blocks.")
    return {
        "block_out_channels": _channels(tensors, "encoder.down_blocks.", blocks),
        "layers_per_block": _count(tensors, "encoder.down_blocks.0.resnets."),
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in tensors,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": groups,
        "scaling_factor": scaling,
    }


def _channels(tensors: Mapping[str, Tensor], prefix: str, blocks: int) -> list[int]:
    return [tensors[f"{prefix}{i}.resnets.0.conv1.weight"].shape[0] for i in range(blocks)]


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow the prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})
