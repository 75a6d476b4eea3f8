"""Qwen-VL's encoder and its one-layer resampler with their own tensor names (Qwen-VL, Monkey, SEED-X)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import reader
from chiasm.interop.mapping import OwnTensors, Permute, Rule, Split
from chiasm.interop.shapes.internlm2 import GroupedQKV

POOL_HEAD = 128  # channels of a head of the attention that pools
QUERIES = 256  # of a square, where the config has none
POSITIONS = 256  # rows of the table of positions, in all published ones
Rules = list[Rule | OwnTensors]


def encoder(
    config: Mapping[str, Any], *, queries: int | None = None, positions: int = POSITIONS
) -> dict[str, Any]:
    """The encoder for the arguments of the original's VisionTransformer, or SEED-X's VisionTransformerWithAttnPool.

    queries: features of an image, where its tensors say so and not the config. positions: rows of their table.
    """
    config = reader(config)
    config.only("patch_pos", False)
    features = config.get("n_queries", QUERIES) if queries is None else queries
    width, out_width = config["width"], config.get("output_dim", 512)
    heads = config.get("attn_pool_heads")
    if heads is None and out_width % POOL_HEAD:
        raise CheckpointError(
            f"{config.place}output_dim is {out_width}, which has to be a multiple of {POOL_HEAD}"
        )
    return {
        "type": "qwen_vl",
        "patch_size": config.get("patch_size", 14),
        "width": width,
        "depth": config["layers"],
        "heads": config["heads"],
        "hidden": int(width * config["mlp_ratio"]),
        "side": math.isqrt(features),
        "out_width": out_width,
        "pool_heads": heads or out_width // POOL_HEAD,
        "table": math.isqrt(positions),
    }


def measured(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, int]:
    """What `encoder` takes beside the config, by the shapes of the tensors that begin with `prefix`."""
    names = {"queries": "attn_pool.query", "positions": "positional_embedding"}
    return {key: len(tensors[prefix + name]) for key, name in names.items() if prefix + name in tensors}


def rows_of_positions(sizes: Mapping[str, int]) -> int:
    """Of the table of positions, where `sizes` are `measured`."""
    return sizes.get("positions", POSITIONS)


def encoder_rules(spec: Mapping[str, Any], theirs: str, ours: str) -> Rules:
    """Rules for the encoder `spec`; theirs, ours: what its tensors' names begin with."""
    block, ours_block = theirs + "transformer.resblocks.{n}.", ours + "blocks.{n}."
    qkv = tuple(f"{ours_block}{layer}.{{p}}" for layer in ("query", "key", "value"))
    layers = {
        "attn.out_proj": "out",
        "ln_1": "attention_norm",
        "ln_2": "mlp_norm",
        "mlp.c_fc": "up",
        "mlp.c_proj": "down",
    }
    return [
        Rule(theirs + "conv1.weight", ours + "patchify.weight"),
        Rule(theirs + "positional_embedding", ours + "positions"),
        Rule(theirs + "ln_pre.{p}", ours + "input_norm.{p}"),
        Rule(theirs + "ln_post.{p}", ours + "final_norm.{p}"),
        Rule(theirs + "proj", ours + "projection.weight", Permute((1, 0))),
        Rule(block + "attn.in_proj.{p}", qkv, GroupedQKV(spec["heads"], 1)),
        *[Rule(f"{block}{a}.{{p}}", f"{ours_block}{b}.{{p}}") for a, b in layers.items()],
        *resampler_rules(spec["out_width"], theirs + "attn_pool.", ours + "pool."),
        OwnTensors(ours + "mean"),
        OwnTensors(ours + "deviation"),
    ]


def resampler_rules(width: int, theirs: str, ours: str) -> Rules:
    """Rules for a resampler of `width` channels."""
    names = {
        "pos_embed": "positions",
        "query": "queries",
        "kv_proj.weight": "input.weight",
        "ln_q.{p}": "query_norm.{p}",
        "ln_kv.{p}": "feature_norm.{p}",
        "attn.out_proj.{p}": "out.{p}",
    }
    return [
        *[
            Rule(
                f"{theirs}attn.in_proj_{w}",
                tuple(f"{ours}{layer}.{w}" for layer in ("query", "key", "value")),
                Split((width, width, width)),
            )
            for w in ("weight", "bias")
        ],
        *[Rule(theirs + a, ours + b) for a, b in names.items()],
    ]
