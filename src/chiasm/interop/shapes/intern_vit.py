"""InternViT (arXiv 2312.14238) in its own names, as transformers' `internvl_vision`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm.errors import CheckpointError
from chiasm.interop.config import known_value
from chiasm.interop.mapping import OwnTensors, Rule, Split, Unused
from chiasm.interop.shapes.towers import settings, tower

# What the original takes where a config is silent: the 6B's sizes.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "num_hidden_layers": 48,
    "num_attention_heads": 25,
    "image_size": 224,
    "patch_size": 14,
    "qk_normalization": True,
    "qkv_bias": False,
    "norm_type": "rms_norm",
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
}
NAMES = {"qk_normalization": "use_qk_norm", "qkv_bias": "attention_bias"}  # theirs and transformers'
EPSILON = 1e-6  # of transformers' norm of queries and keys
# Layers of a block: the original's and transformers', without the queries, keys and values.
BLOCK = {
    "attn.proj.{p}": "attention.projection_layer.{p}",
    "attn.q_norm.{p}": "attention.q_norm.{p}",
    "attn.k_norm.{p}": "attention.k_norm.{p}",
    "norm1.{p}": "layernorm_before.{p}",
    "norm2.{p}": "layernorm_after.{p}",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "mlp.{rest...}": "mlp.{rest...}",
}


def intern_vit(config: Mapping[str, Any], layer: int) -> dict[str, Any]:
    """The encoder for the original's `vision_config`, whose hidden state `layer` is read."""
    values = {key: config.get(key, default) for key, default in DEFAULTS.items()}
    known_value("vision_config.use_moe", config.get("use_moe") or False, False)
    known_value("vision_config.num_channels", config.get("num_channels", 3), 3)
    check_norms(values["qk_normalization"], values["layer_norm_eps"])
    options = {NAMES.get(key, key): value for key, value in values.items()}
    return tower({**options, "model_type": "internvl_vision"}, "internvl_vision", layer=layer)


def check_norms(of_queries: bool, epsilon: float) -> None:
    """Raise CheckpointError for norms of queries and keys with another epsilon than transformers has."""
    if of_queries and epsilon != EPSILON:
        raise CheckpointError(
            f"vision_config.layer_norm_eps is {epsilon!r}, but only {EPSILON!r} is known where queries "
            "and keys are normed"
        )


def intern_vit_rules(encoder: Mapping[str, Any], prefix: str) -> list[Rule | Unused | OwnTensors]:
    """Rules for the encoder (of `intern_vit`) whose tensors begin with `prefix`."""
    built = settings(encoder["config"])
    theirs, ours = f"{prefix}encoder.layers.{{n}}.", "encoder.model.encoder.layer.{n}."
    parts = tuple(f"{ours}attention.{letter}_proj.{{p}}" for letter in "qkv")
    embeddings = f"{prefix}embeddings."
    return [
        *unused_layers(encoder, f"{prefix}encoder.layers."),
        Rule(f"{embeddings}class_embedding", "encoder.model.embeddings.cls_token"),
        Rule(
            f"{embeddings}patch_embedding.{{p}}", "encoder.model.embeddings.patch_embeddings.projection.{p}"
        ),
        Rule(f"{embeddings}position_embedding", "encoder.model.embeddings.position_embeddings"),
        Rule(f"{theirs}attn.qkv.{{p}}", parts, Split((built.hidden_size,) * 3)),
        *[Rule(theirs + name, ours + our_name) for name, our_name in BLOCK.items()],
        OwnTensors("encoder.mean"),
        OwnTensors("encoder.deviation"),
    ]


def unused_layers(encoder: Mapping[str, Any], prefix: str) -> list[Unused]:
    """The blocks behind the layer that is read."""
    depth, layer = settings(encoder["config"]).num_hidden_layers, encoder["layer"]
    first = layer if layer >= 0 else depth + 1 + layer
    return [Unused(f"{prefix}{n}.{{rest...}}") for n in range(first, depth)]
