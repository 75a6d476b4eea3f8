"""MosaicGPT (mosaicml/mpt-1b-redpajama-200b), MPT's first form: the same network under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from chiasm.interop.config import known_value
from chiasm.interop.mapping import Rule

# Names of a block's parts in MosaicGPT, and MPT's.
NAMES = {
    "ln_1": "norm_1",
    "ln_2": "norm_2",
    "mlp.mlp_up": "ffn.up_proj",
    "mlp.mlp_down": "ffn.down_proj",
}
ATTENTION = {"attn_qk_ln": "qk_ln", "attn_clip_qkv": "clip_qkv"}
ATTENTION |= {key: key for key in ("alibi", "alibi_bias_max", "attn_pdrop", "prefix_lm", "softmax_scale")}
# How a model is initialised, trained or run, not what it computes.
WITHOUT_EFFECT = frozenset({
    "attn_impl", "attn_uses_sequence_id", "emb_init_std", "emb_init_uniform_lim", "fan_mode", "init_config",
    "init_device", "init_div_is_residual", "init_gain", "init_nonlinearity", "init_std", "learned_pos_emb",
    "low_precision_layernorm", "param_init_fn", "tokenizer_name", "verbose",
})  # fmt: skip
DEFAULTS = {"no_bias": False, "alibi": False}  # where MPT's are others


def mpt_config(config: Mapping[str, Any], *, first: bool) -> dict[str, Any]:
    """transformers' MPT config of the one of MPT's own code, which knows more keys; first: of MosaicGPT's."""
    options: dict[str, Any] = {**DEFAULTS, **config} if first else dict(config)
    options = {key: value for key, value in options.items() if key not in WITHOUT_EFFECT | {"model_type"}}
    if first:
        if "mlp_ratio" in options:
            options["expansion_ratio"] = options.pop("mlp_ratio")
        attention = {ours: options.pop(theirs) for theirs, ours in ATTENTION.items() if theirs in options}
    else:
        attention = dict(options.pop("attn_config", None) or {})
    if "attn_pdrop" in attention:  # 0.0, which transformers takes as a whole number alone
        attention["attn_pdrop"] = int(known_value("attn_pdrop", attention["attn_pdrop"], 0))
    return {**options, "attn_config": attention}


def mosaic_rules(inside: str, theirs: str, ours: str) -> list[Rule]:
    """MosaicGPT's names by MPT's; inside: what stands before the names of block `{n}`'s parts."""
    return [
        *(
            Rule(f"{inside}{old}.{{p}}", f"{ours}transformer.blocks.{{n}}.{new}.{{p}}")
            for old, new in NAMES.items()
        ),
        Rule(f"{theirs}transformer.ln_f.{{p}}", f"{ours}transformer.norm_f.{{p}}"),
    ]


def mpt_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of either form by MPT's names."""
    named = {}
    for name, tensor in tensors.items():
        for old, new in {**NAMES, "ln_f": "norm_f"}.items():
            name = name.replace(f".{old}.", f".{new}.")
        named[name] = tensor
    return named
