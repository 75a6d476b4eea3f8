"""InternLM2 (arXiv 2403.17297) in its own names: a Llama whose queries, keys and values are one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from chiasm.interop.mapping import Rule, Transform, Unused
from chiasm.interop.shapes.towers import causal_config

# Layers of a block: InternLM2's and Llama's, without the queries, keys and values.
LINEAR = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
}
# Fields that have another name, or are transformers' bookkeeping.
DROPPED = ("bias", "model_type", "rope_scaling", "auto_map", "attn_implementation", "max_length")
NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


@dataclass(frozen=True)
class GroupedQKV(Transform):
    """Theirs has, for each key-value head, its queries' rows, its key's and its value's; ours are three layers."""

    key_heads: int
    queries: int  # heads of queries for each head of keys

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [
            part.flatten(0, 2)
            for part in rearrange(
                theirs[0], "(g q d) ... -> g q d ...", g=self.key_heads, q=self.queries + 2
            ).split([self.queries, 1, 1], 1)
        ]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        heads = zip(ours, (self.queries, 1, 1), strict=True)
        parts = [rearrange(part, "(g q d) ... -> g q d ...", g=self.key_heads, q=q) for part, q in heads]
        return [torch.cat(parts, 1).flatten(0, 2)]


def internlm2_config(config: Mapping[str, Any], keys: Sequence[str] = ()) -> dict[str, Any]:
    """The language model `causal` for InternLM2's config; `keys` decide whether its attention has biases."""
    llama_options = {key: value for key, value in config.items() if key not in DROPPED}
    scaling = config.get("rope_scaling")
    if scaling and float(scaling.get("factor", 1.0)) != 1.0:
        llama_options["rope_scaling"] = scaling
    bias = any(key.endswith("attention.wqkv.bias") for key in keys)
    return causal_config({**llama_options, "attention_bias": bias}, "llama")


def internlm2_rules(spec: Mapping[str, Any], prefix: str = "") -> list[Rule | Unused]:
    """Rules for the language model `spec` (of `internlm2_config`) whose tensors begin with `prefix`."""
    theirs, ours = f"{prefix}model.layers.{{n}}.", "language.inner.model.layers.{n}."
    qkv = tuple(f"{ours}self_attn.{name}_proj.{{w}}" for name in "qkv")
    return [
        Rule(f"{theirs}attention.wqkv.{{w}}", qkv, grouped(spec)),
        *[Rule(f"{theirs}{a}.{{w}}", f"{ours}{b}.{{w}}") for a, b in (LINEAR | NORMS).items()],
        Unused(f"{theirs}attention.rotary_emb.inv_freq"),
        Rule(f"{prefix}model.tok_embeddings.weight", "language.inner.model.embed_tokens.weight"),
        Rule(f"{prefix}model.norm.weight", "language.inner.model.norm.weight"),
        Rule(f"{prefix}output.weight", "language.inner.lm_head.weight"),
    ]


def grouped(spec: Mapping[str, Any]) -> GroupedQKV:
    """How the queries, keys and values of the language model `spec` stand in one layer."""
    config = spec["config"]
    heads = config.get("num_attention_heads", 32)
    key_heads = config.get("num_key_value_heads") or heads
    return GroupedQKV(key_heads, heads // key_heads)
