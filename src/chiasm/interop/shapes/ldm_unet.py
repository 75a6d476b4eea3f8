"""Latent diffusion's own layout of its UNet (`input_blocks`, `middle_block`, `output_blocks`), as diffusers'."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from chiasm.interop.mapping import Rule

GROUPS = 32  # of every group norm


def ldm_unet(
    tensors: Mapping[str, Tensor],
    *,
    multipliers: Sequence[int],
    blocks: int,
    attention: Collection[int],
    heads: int,
) -> dict[str, Any]:
    """The configuration of UNet2DConditionModel for the original's constructor arguments and its tensors.

    attention: by how much latents are shrunk where there are transformers (attention_resolutions).
    """
    width = tensors["input_blocks.0.0.weight"].shape[0]
    crossed = [2**level in attention for level in range(len(multipliers))]
    transformers = [key for key in tensors if key.startswith("middle_block.1.transformer_blocks.")]
    return {
        "in_channels": tensors["input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors["out.2.weight"].shape[0],
        "block_out_channels": [width * multiplier for multiplier in multipliers],
        "layers_per_block": blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in crossed],
        "up_block_types": ["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(crossed)],
        "transformer_layers_per_block": len({key.split(".")[3] for key in transformers}),
        "cross_attention_dim": tensors["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "use_linear_projection": tensors["middle_block.1.proj_in.weight"].ndim == 2,
        "attention_head_dim": heads,
        "norm_num_groups": GROUPS,
    }


def ldm_unet_rules(unet: Mapping[str, Any], prefix: str, ours: str) -> list[Rule]:
    """Rules for tensors that begin with `prefix`; what stands in a transformer block is called the same."""
    depth, blocks = len(unet["block_out_channels"]), unet["layers_per_block"]
    rules = [
        Rule(prefix + "time_embed.0.{p}", ours + "time_embedding.linear_1.{p}"),
        Rule(prefix + "time_embed.2.{p}", ours + "time_embedding.linear_2.{p}"),
        Rule(prefix + "input_blocks.0.0.{p}", ours + "conv_in.{p}"),
        Rule(prefix + "out.0.{p}", ours + "conv_norm_out.{p}"),
        Rule(prefix + "out.2.{p}", ours + "conv_out.{p}"),
        *_residual(prefix + "middle_block.0.", ours + "mid_block.resnets.0."),
        Rule(prefix + "middle_block.1.{rest...}", ours + "mid_block.attentions.0.{rest...}"),
        *_residual(prefix + "middle_block.2.", ours + "mid_block.resnets.1."),
    ]
    for level in range(depth):
        down, up = (ours + f"{side}_blocks.{level}." for side in ("down", "up"))
        first = 1 + level * (blocks + 1)
        for i in range(blocks):
            rules += _residual(f"{prefix}input_blocks.{first + i}.0.", f"{down}resnets.{i}.")
            rules.append(
                Rule(f"{prefix}input_blocks.{first + i}.1.{{rest...}}", f"{down}attentions.{i}.{{rest...}}")
            )
        rules.append(
            Rule(f"{prefix}input_blocks.{first + blocks}.0.op.{{p}}", down + "downsamplers.0.conv.{p}")
        )
        first = level * (blocks + 1)
        for place in (1, 2):  # behind a residual block, or behind its transformer
            rules.append(
                Rule(
                    f"{prefix}output_blocks.{first + blocks}.{place}.conv.{{p}}", up + "upsamplers.0.conv.{p}"
                )
            )
        for i in range(blocks + 1):
            rules += _residual(f"{prefix}output_blocks.{first + i}.0.", f"{up}resnets.{i}.")
            rules.append(
                Rule(f"{prefix}output_blocks.{first + i}.1.{{rest...}}", f"{up}attentions.{i}.{{rest...}}")
            )
    return rules


def _residual(theirs: str, ours: str) -> list[Rule]:
    names = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    }
    return [Rule(f"{theirs}{a}.{{p}}", f"{ours}{b}.{{p}}") for a, b in names.items()]
