"""Swin Transformer with its own tensor names (PSALM, Mask2Former)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm.interop.config import reader
from chiasm.interop.mapping import OwnTensors, Rule, Unused

TRAINING = ("drop_rate", "attn_drop_rate", "drop_path_rate", "frozen_stages", "use_checkpoint")
# As the original's code builds them.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "small": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12},
    "large": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
}


def swin(config: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder for the original's constructor arguments, whose every stage is an output."""
    config = reader(config)
    depths = config.get("depths", [2, 2, 6, 2])
    config.only("qk_scale", None)
    config.only("in_chans", 3)
    config.only("out_indices", list(range(len(depths))), tuple(range(len(depths))))
    return {
        "type": "swin",
        "patch_size": config.get("patch_size", 4),
        "width_of_patches": config.get("embed_dim", 96),
        "depths": list(depths),
        "heads": list(config.get("num_heads", [3, 6, 12, 24])),
        "window": config.get("window_size", 7),
        "mlp_ratio": config.get("mlp_ratio", 4.0),
        "bias": config.get("qkv_bias", True),
        "patch_norm": config.get("patch_norm", True),
        "levels": "all",
        "absolute": config.get("pretrain_img_size", 224) if config.get("ape", False) else None,
    }


def swin_rules(encoder: Mapping[str, Any], prefix: str) -> list[Rule | Unused | OwnTensors]:
    """Rules for a tower whose tensors begin with `prefix`; the table of pairs of places is worked out anew."""
    theirs, ours = prefix + "layers.{s}.blocks.{n}.", "encoder.stages.{s}.{n}."
    layers = {
        **{"norm1": "attention_norm", "norm2": "mlp_norm", "attn.qkv": "attention.qkv"},
        **{"attn.proj": "attention.out", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"},
    }
    return [
        Unused(theirs + "attn.relative_position_index"),
        Rule(theirs + "attn.relative_position_bias_table", ours + "attention.distances"),
        *[Rule(f"{theirs}{name}.{{p}}", f"{ours}{our_name}.{{p}}") for name, our_name in layers.items()],
        Rule(prefix + "layers.{s}.downsample.{layer}.{p}", "encoder.merges.{s}.{layer}.{p}"),
        *[Rule(f"{prefix}norm{i}.{{p}}", f"encoder.norms.{i}.{{p}}") for i in range(len(encoder["depths"]))],
        Rule(prefix + "patch_embed.proj.{p}", "encoder.patchify.{p}"),
        Rule(prefix + "patch_embed.norm.{p}", "encoder.patch_norm.{p}"),
        Rule(prefix + "absolute_pos_embed", "encoder.positions"),
        OwnTensors("encoder.mean"),
        OwnTensors("encoder.deviation"),
    ]
