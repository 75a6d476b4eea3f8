"""Vary's new vocabulary (arXiv 2312.06109): SAM's encoder and two convolutions behind its neck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import known_value, reader
from chiasm.interop.mapping import OwnTensors, Rule
from chiasm.interop.shapes.sam import sam_encoder, sam_rules

CHANNELS = (512, 1024)  # of the two convolutions, which its code holds
LAYERS = {"net_2": "downsample.0", "net_3": "downsample.1"}


def vary_tower(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder for the arguments of the original's ImageEncoderViT; `c2`, `c3`: other channels than its own."""
    arguments = reader(arguments)
    arguments.only("in_chans", 3)
    return {
        **sam_encoder(arguments, arguments.get("global_attn_indexes", (2, 5, 8, 11))),
        "downsample": [arguments.get("c2", CHANNELS[0]), arguments.get("c3", CHANNELS[1])],
    }


def tower_views(config: Mapping[str, Any], tower: Mapping[str, Any]) -> dict[str, Any]:
    """The views of a model with this tower, whose config may say how many tokens an image becomes."""
    tokens = (tower["size"] // tower["patch_size"] // 4) ** 2
    known_value("image_token_len", config.get("image_token_len", tokens), tokens)
    return {"type": "whole", "size": tower["size"], "fit": "stretch"}


def vary_tower_rules(prefix: str, slot: str = "encoder") -> list[Rule | OwnTensors]:
    """Rules for the encoder of `vary_tower` whose tensors begin with `prefix`."""
    layers = [Rule(f"{prefix}{theirs}.{{p}}", f"{slot}.{ours}.{{p}}") for theirs, ours in LAYERS.items()]
    return [*layers, *sam_rules(prefix, slot)]


def tower_arguments(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """The arguments of a tower by the shapes of its tensors, which `prefix` begins: its code holds them.

    Raises CheckpointError naming a tensor that is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        if prefix + name not in tensors:
            raise CheckpointError(f"there is no {prefix}{name}, by which the tower's structure is known")
        return tuple(tensors[prefix + name].shape)

    width, _, patch, _ = shape("patch_embed.proj.weight")
    side = shape("pos_embed")[1]
    depth = sum(name.startswith(prefix) and name.endswith(".norm1.weight") for name in tensors)
    reaches = [shape(f"blocks.{n}.attn.rel_pos_h") for n in range(depth)]
    windows = {(reach + 1) // 2 for reach, _ in reaches} - {side}
    if len(windows) > 1:
        raise CheckpointError(f"{prefix}blocks have windows of {sorted(windows)} patches; one size is known")
    return {
        "img_size": side * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": depth,
        "num_heads": width // reaches[0][1],
        "mlp_ratio": shape("blocks.0.mlp.lin1.weight")[0] / width,
        "window_size": next(iter(windows), side),
        "global_attn_indexes": [n for n, (reach, _) in enumerate(reaches) if reach == 2 * side - 1],
        "out_chans": shape("neck.0.weight")[0],
        "c2": shape("net_2.weight")[0],
        "c3": shape("net_3.weight")[0],
    }
