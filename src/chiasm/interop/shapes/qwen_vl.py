"""Qwen-VL's encoder and its one-layer resampler with their own tensor names (Qwen-VL, SEED-X)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from chiasm.errors import CheckpointError
from chiasm.interop.config import reader
from chiasm.interop.mapping import OwnTensors, Permute, Rule, Split
from chiasm.interop.shapes.internlm2 import GroupedQKV

POOL_HEAD = 128  # channels of a head of the attention that pools
Rules = list[Rule | OwnTensors]


def encoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder for the arguments of the original's VisionTransformerWithAttnPool."""
    config = reader(config)
    config.only("patch_pos", False)
    queries, width, out_width = config.get("n_queries", 256), config["width"], config.get("output_dim", 512)
    if out_width % POOL_HEAD:
        raise CheckpointError(f"output_dim is {out_width}, which has to be a multiple of {POOL_HEAD}")
    return {
        "type": "qwen_vl",
        "patch_size": config.get("patch_size", 14),
        "width": width,
        "depth": config["layers"],
        "heads": config["heads"],
        "hidden": int(width * config["mlp_ratio"]),
        "side": math.isqrt(queries),
        "out_width": out_width,
        "pool_heads": out_width // POOL_HEAD,
    }


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
