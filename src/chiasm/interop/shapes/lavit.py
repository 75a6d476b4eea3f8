"""LaVIT's tensors under their own names, and the structure that follows from their shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from chiasm.interop.mapping import OwnTensors, Reshape, Rule, Split, Unused
from chiasm.interop.shapes.eva import eva, eva_rules

Rules = list[Rule | Unused | OwnTensors]

COUNTED = ("counts", "sums", "frequency", "last_use", "last_revival", "batches")  # what a codebook learns by
RATIO = 4.3637  # hidden width over width of the tokenizer's blocks


def tower(config: Mapping[str, Any]) -> dict[str, Any]:
    """The vision tower: the last block's features of the patches, without a norm."""
    options = {
        "img_size": config["img_size"],
        "patch_size": config.get("patch_size", 14),
        "embed_dim": config["width"],
        "depth": config["vit_layers"],
        "num_heads": config["width"] // config["head_width"],
        "mlp_ratio": config.get("vit_mlp_ratio", RATIO),
        "qkv_bias": True,
    }
    return {**eva(options), "class_token": "drop"}


def tokenizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """The image tokenizer, without what a decoder of features adds."""
    return {
        "type": "lavit",
        "encoder": tower(config),
        "size": config["img_size"],
        "codebook_size": config["n_code"],
        "code_width": config["code_dim"],
        "depth": config["layers"],
        "heads": config["heads"],
        "hidden": int(config["width"] * config.get("mlp_ratio", RATIO)),
        "decoder_depth": 0,
    }


def tokenizer_shape(tower: Mapping[str, Tensor], encoder: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config that follows from the tensors of the two files; heads are those of the published model."""
    patch, width = tower["patch_embed.proj.weight"].shape[-1], tower["cls_token"].shape[-1]
    cells = tower["pos_embed"].shape[1] - 1
    codes, code_width = encoder["quantize.embedding.weight"].shape
    return {
        "img_size": math.isqrt(cells) * patch,
        "patch_size": patch,
        "width": width,
        "vit_layers": _blocks(tower, "blocks."),
        "vit_mlp_ratio": ratio(tower["blocks.0.mlp.fc1.weight"]),
        "head_width": width // 16,
        "layers": _blocks(encoder, "causal_encoder.blocks."),
        "mlp_ratio": ratio(encoder["causal_encoder.blocks.0.mlp.fc1.weight"]),
        "heads": 16,
        "n_code": codes,
        "code_dim": code_width,
    }


def decoder_shape(decoder: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options of a decoder of features, but for its heads."""
    return {
        "width": decoder["in_proj.weight"].shape[0],
        "depth": _blocks(decoder, "blocks."),
        "hidden": decoder["blocks.0.mlp.fc1.weight"].shape[0],
        "out_width": decoder["decode_task_layer.2.weight"].shape[0],
    }


def ratio(weight: Tensor) -> float:
    """Hidden width over width of an MLP; a hair more, because what it is for cuts fractions off."""
    return (weight.shape[0] + 0.5) / weight.shape[1]


def tower_rules(config: Mapping[str, Any], theirs: str, slot: str) -> Rules:
    return eva_rules(tower(config), theirs, slot)


def selector_rules(theirs: str, slot: str) -> Rules:
    """The selector, of the image tokenizer or of the connector."""
    return [
        Rule(theirs + "token_predictor.in_conv.{n}.{p}", slot + ".selector.inner.{n}.{p}"),
        Rule(theirs + "token_predictor.out_conv.{n}.{p}", slot + ".selector.outer.{n}.{p}"),
    ]


def merger_rules(config: Mapping[str, Any], theirs: str, slot: str) -> Rules:
    """The merger, of the image tokenizer or of the connector."""
    width = config["width"]
    block, ours = theirs + "causal_encoder.blocks.{n}.", slot + ".merger.blocks.{n}."
    return [
        *_fused(block + "token_causal_attn.", ours + "causal.", width),
        *[
            Rule(f"{block}token_cross_attn.{a}.{{p}}", f"{ours}dropped.{b}.{{p}}")
            for a, b in (("query", "query"), ("key", "key"), ("value", "value"), ("proj", "out"))
        ],
        *_norms(block, ours, ("causal_norm", "dropped_norm", "mlp_norm")),
        Rule(theirs + "causal_encoder.ln_vision.{p}", slot + ".merger.source_norm.{p}"),
        Rule(theirs + "causal_encoder.norm.{p}", slot + ".merger.norm.{p}"),
    ]


def tokenizer_rules(config: Mapping[str, Any], theirs: str) -> Rules:
    """What the tokenizer has besides its tower and its decoder."""
    slot = "image_tokenizer"
    return [
        *selector_rules(theirs, slot),
        *merger_rules(config, theirs, slot),
        Rule(theirs + "encode_task_layer.{n}.{p}", slot + ".to_code.{n}.{p}"),
        Rule(theirs + "quantize.embedding.weight", slot + ".quantizer.vectors"),
        *[OwnTensors(f"{slot}.quantizer.{name}") for name in COUNTED],
    ]


def detokenizer_rules(shape: Mapping[str, Any], cells: int, theirs: str, ours: str) -> Rules:
    """A decoder of features, without its later layers."""
    width, their_block, our_block = shape["width"], theirs + "blocks.{n}.", ours + "blocks.{n}."
    table = Reshape((1, cells, width), (cells, width))
    return [
        Rule(theirs + "in_proj.{p}", ours + "input.{p}"),
        Rule(theirs + "pos_embed", ours + "positions", table),
        Rule(theirs + "query_embed", ours + "queries", table),
        *_fused(their_block + "self_attn.", our_block + "own.", width),
        *[
            Rule(f"{their_block}cross_attn.{a}.{{p}}", f"{our_block}codes.{b}.{{p}}")
            for a, b in (("query", "query"), ("key", "key"), ("value", "value"), ("proj", "out"))
        ],
        *_norms(their_block, our_block, ("own_norm", "codes_norm", "mlp_norm")),
        Rule(theirs + "norm.{p}", ours + "norm.{p}"),
        Rule(theirs + "decode_task_layer.{n}.{p}", ours + "output.{n}.{p}"),
    ]


def condition_rules(theirs: str, slot: str) -> Rules:
    """From features to the conditions of either diffusion model."""
    return [
        Rule(theirs + "unet_proj.{p}", slot + ".projection.{p}"),
        *[Rule(f"{theirs}unet_proj_{i + 1}.{{p}}", f"{slot}.token_projections.{i}.{{p}}") for i in range(2)],
        Rule(theirs + "unet_attnpool.positional_embedding", slot + ".pool.positions"),
        *[
            Rule(f"{theirs}unet_attnpool.{a}_proj.{{p}}", f"{slot}.pool.{b}.{{p}}")
            for a, b in (("q", "query"), ("k", "key"), ("v", "value"), ("c", "out"))
        ],
    ]


def _fused(theirs: str, ours: str, width: int) -> Rules:
    names = tuple(f"{ours}{name}.{{p}}" for name in ("query", "key", "value"))
    split = Rule(theirs + "qkv.{p}", names, Split((width, width, width)))
    return [split, Rule(theirs + "proj.{p}", ours + "out.{p}")]


def _norms(theirs: str, ours: str, names: tuple[str, str, str]) -> Rules:
    """The three norms of a block and its MLP."""
    return [
        *[Rule(f"{theirs}norm{i}.{{p}}", f"{ours}{name}.{{p}}") for i, name in enumerate(names)],
        Rule(theirs + "mlp.fc1.{p}", ours + "mlp.0.{p}"),
        Rule(theirs + "mlp.fc2.{p}", ours + "mlp.2.{p}"),
    ]


def _blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max(
        int(name.removeprefix(prefix).split(".")[0]) for name in tensors if name.startswith(prefix)
    )
