"""Qwen (arXiv 2309.16609), the first of its name, in its own names: a Qwen2 without grouped heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm.errors import CheckpointError
from chiasm.interop.config import reader
from chiasm.interop.mapping import Rule, Split, Unused
from chiasm.interop.shapes.towers import causal_config

SEQUENCE = 2048  # positions that Qwen-7B was trained with
LAYERS = {
    "ln_1": "input_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "ln_2": "post_attention_layernorm",
    "mlp.w1": "mlp.up_proj",
    "mlp.w2": "mlp.gate_proj",
    "mlp.c_proj": "mlp.down_proj",
}
TRAINING, PRECISION = "of training", "how it is run, not what it answers"
# Keys of its config that do not reach the numbers, wherever it stands in a family's.
QWEN_WITHOUT_EFFECT = {
    "*.attn_dropout_prob": TRAINING,
    "*.emb_dropout_prob": TRAINING,
    "*.bf16": PRECISION,
    "*.fp16": PRECISION,
    "*.fp32": PRECISION,
    "*.onnx_safe": PRECISION,
    "*.softmax_in_fp32": PRECISION,
    "*.use_flash_attn": PRECISION,
    "*.use_cache_quantization": PRECISION,
    "*.use_cache_kernel": PRECISION,
    "*.scale_attn_weights": "its code scales scores in any case",
    "*.tokenizer_type": "read with the tokenizer",
}


def qwen_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model `causal` for Qwen's config, of which all other keys may stand beside it.

    Behind `seq_length` positions Qwen answers by other rotary angles and scores; a context ends there.
    Raises CheckpointError for an option that Qwen2 has not.
    """
    config = reader(config)
    config.only("rotary_pct", 1.0)
    config.only("no_bias", True)
    width, heads = config.get("hidden_size", 4096), config.get("num_attention_heads", 32)
    head_width = config.get("kv_channels", 128)
    if head_width * heads != width:
        raise CheckpointError(
            f"{config.place}kv_channels is {head_width}, but {heads} heads of it are not the hidden_size {width}"
        )
    longest, trained = config.get("max_position_embeddings", 8192), config.get("seq_length", SEQUENCE)
    stretched = [config.get(key, True) for key in ("use_dynamic_ntk", "use_logn_attn")]
    return causal_config(
        {
            "vocab_size": config.get("vocab_size", 151936),
            "hidden_size": width,
            "intermediate_size": config.get("intermediate_size", 22016) // 2,
            "num_hidden_layers": config.get("num_hidden_layers", 32),
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": min(longest, trained) if any(stretched) else longest,
            "rms_norm_eps": config.get("layer_norm_epsilon", 1e-6),
            "rope_theta": config.get("rotary_emb_base", 10000),
            "tie_word_embeddings": config.get("tie_word_embeddings", False),
        },
        "qwen2",
    )


def qwen_rules(width: int, prefix: str = "") -> list[Rule | Unused]:
    """Rules for a Qwen of `width` channels whose tensors begin with `prefix`."""
    theirs, ours = f"{prefix}transformer.", "language.inner.model."
    block, our_block = theirs + "h.{n}.", ours + "layers.{n}."
    qkv = tuple(f"{our_block}self_attn.{name}_proj.{{w}}" for name in "qkv")
    return [
        Rule(f"{theirs}wte.weight", f"{ours}embed_tokens.weight"),
        Unused(f"{block}attn.masked_bias"),
        Unused(f"{block}attn.rotary_emb.inv_freq"),
        Rule(f"{block}attn.c_attn.{{w}}", qkv, Split((width,) * 3)),
        *[
            Rule(f"{block}{name}.weight", f"{our_block}{our_name}.weight")
            for name, our_name in LAYERS.items()
        ],
        Rule(f"{theirs}ln_f.weight", f"{ours}norm.weight"),
        Rule(f"{prefix}lm_head.weight", "language.inner.lm_head.weight"),
    ]
