"""Emu2's config in transformers' form, from the files or from the shapes of the tensors, and its tensors' rules."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import reader
from chiasm.interop.mapping import OwnTensors, Rule, Unused
from chiasm.interop.shapes.eva import eva, eva_rules
from chiasm.interop.shapes.lavit import ratio
from chiasm.interop.shapes.towers import causal_config

HEAD_WIDTH, LANGUAGE_HEAD_WIDTH = 112, 128  # as published; they do not follow from shapes
QUERIES = 64  # image positions of Emu2 and Emu2-Gen; Emu2-Chat reads 256
# Keys of the config that are not the language model's.
OTHER = ("auto_map", "d_model", "model_type", "model_version", "vision_config")
UP, DOWN = "heads.image.alphabet.input.weight", "heads.image.alphabet.output.0.weight"


def vision(config: Mapping[str, Any]) -> dict[str, Any]:
    """The tower and the pooling of its features: what images are read as, and drawn as."""
    config = reader(config)
    config.only("rope", False)
    width, size, patch = config["width"], config["image_size"], config.get("patch_size", 14)
    if width % config["head_width"]:
        raise CheckpointError(
            f"head_width is {config['head_width']}, which does not divide the width {width}"
        )
    options = {
        "img_size": size,
        "patch_size": patch,
        "embed_dim": width,
        "depth": config["layers"],
        "num_heads": width // config["head_width"],
        "mlp_ratio": config["mlp_ratio"],
        "qkv_bias": config.get("qkv_bias", True),
        "init_values": config.get("init_value"),
        "postnorm": config.get("postnorm", True),
        "naiveswiglu": config.get("naiveswiglu", False),
        "subln": config.get("subln", False),
        "norm_eps": config.get("layer_norm_eps", 1e-6),
    }
    side, queries = size // patch, config.get("n_query", QUERIES)
    pooled = math.isqrt(queries)
    if pooled**2 != queries or side % pooled:
        raise CheckpointError(
            f"n_query is {queries}, but {side} x {side} patches have no square of as many means"
        )
    return {
        "type": "features",
        "encoder": {**eva(options), "class_token": "drop"},
        "size": size,
        "grid": [pooled, pooled],
    }


def language(config: Mapping[str, Any]) -> dict[str, Any]:
    return causal_config({key: config[key] for key in config if key not in OTHER}, "llama")


def rules(config: Mapping[str, Any], keys: Collection[str], place: str) -> list[Rule | Unused | OwnTensors]:
    """Rules for the multimodal model; place: what its tensors' names begin with."""
    inner = place + ("model." if any(key.startswith(place + "model.") for key in keys) else "")
    lm = inner + "decoder.lm."
    up = (place + "project_up", lm + "project_up", inner + "vl_adapter.projection")
    down = (place + "project_down", lm + "project_down", lm + "stu_regress_head")
    return [
        *eva_rules(vision(config["vision_config"])["encoder"], inner + "visual.", "image_tokenizer.encoder"),
        *[Rule(name + ".weight", UP) for name in up],
        *[Rule(name + ".weight", DOWN) for name in down],
        Unused(lm + "model.layers.{n}.self_attn.rotary_emb.inv_freq"),
        Rule(lm + "{rest...}", "language.inner.{rest...}"),
    ]


def from_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config that follows from tensors of the original's own layout; the rest is as published."""
    needed = (
        *("visual.pos_embed", "visual.patch_embed.proj.weight", "visual.blocks.0.mlp.fc1.weight"),
        *("decoder.lm.model.embed_tokens.weight", "decoder.lm.model.layers.0.mlp.gate_proj.weight"),
    )
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise CheckpointError(f"the checkpoint of Emu2 lacks {', '.join(missing)}")
    positions, patches, hidden, words, gate = (tensors[name] for name in needed)
    patch, width = patches.shape[-1], patches.shape[0]
    for name, whole, part in (("tower", width, HEAD_WIDTH), ("LLaMA", words.shape[1], LANGUAGE_HEAD_WIDTH)):
        if whole % part:
            raise CheckpointError(
                f"the {name} has {whole} channels, which heads of the published {part} do not divide; put Emu2's "
                "config.json beside the tensors"
            )
    vision_config = {
        "image_size": math.isqrt(positions.shape[1] - 1) * patch,
        "patch_size": patch,
        "width": width,
        "layers": _blocks(tensors, "visual.blocks."),
        "head_width": HEAD_WIDTH,
        "mlp_ratio": ratio(hidden),
    }
    return {
        "vision_config": vision_config,
        "d_model": width,
        "vocab_size": len(words),
        "hidden_size": words.shape[1],
        "intermediate_size": len(gate),
        "num_hidden_layers": _blocks(tensors, "decoder.lm.model.layers."),
        "num_attention_heads": words.shape[1] // LANGUAGE_HEAD_WIDTH,
    }


def from_case(case: Mapping[str, Any], tensors: Mapping[str, Tensor], place: str) -> dict[str, Any]:
    """The config of a parity case, in whose model the patches and heads are those of its arguments."""
    vision_config = {
        "image_size": case["img"],
        "width": case["width"],
        "layers": case["vlayers"],
        "head_width": case["head_width"],
        "mlp_ratio": case["mlp_ratio"],
        "n_query": case["n_query"],
    }
    return {
        "vision_config": vision_config,
        "d_model": case["width"],
        "vocab_size": len(tensors[place + "decoder.lm.model.embed_tokens.weight"]),
        "hidden_size": case["hidden"],
        "intermediate_size": case["inter"],
        "num_hidden_layers": case["layers"],
        "num_attention_heads": case["heads"],
    }


def _blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})
