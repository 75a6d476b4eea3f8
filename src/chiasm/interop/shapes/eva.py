"""EVA's vision transformers with their own tensor names (BLIP-2, GVT)."""

from collections.abc import Mapping
from typing import Any

from chiasm.errors import CheckpointError
from chiasm.interop.mapping import OwnTensors, Rule, Split, Unused

REFUSED = ("use_rel_pos_bias", "use_shared_rel_pos_bias", "qk_scale")


def eva(config: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder for the original's constructor arguments, its class token in front and without a final norm."""
    for option in REFUSED:
        if config.get(option):
            raise CheckpointError(f"{option} is {config[option]!r}; only {option} off is known")
    size, patch = config["img_size"], config["patch_size"]
    rotary = config.get("pt_hw_seq_len", 16) if config.get("rope") else None
    if rotary and not config.get("intp_freq") and rotary != size // patch:
        raise CheckpointError(
            f"rotary positions for {rotary} patches a side do not fit {size // patch} without intp_freq"
        )
    return {
        "type": "eva",
        "size": size,
        "patch_size": patch,
        "width": config["embed_dim"],
        "depth": config["depth"],
        "heads": config["num_heads"],
        "hidden": int(config["embed_dim"] * config.get("mlp_ratio", 4.0)),
        "bias": "queries_values" if config.get("qkv_bias") else "none",
        "absolute": config.get("use_abs_pos_emb", True),
        "rotary": rotary,
        "gated": bool(config.get("naiveswiglu")),
        "sub_norm": bool(config.get("subln")),
        "post_norm": bool(config.get("postnorm")),
        "layer_scale": (config.get("init_values") or 0) > 0,
        "final_norm": False,
        "epsilon": config.get("norm_eps", 1e-6),
        "class_token": "first",
    }


def eva_rules(
    encoder: Mapping[str, Any], prefix: str, slot: str = "encoder"
) -> list[Rule | Unused | OwnTensors]:
    """Rules for a tower whose tensors begin with `prefix`; classifier, its norms and rotary tables are unused."""
    theirs, ours, width = prefix + "blocks.{n}.", slot + ".blocks.{n}.", encoder["width"]
    attention, mlp = ours + "attention.", ours + "mlp."
    linear = [attention + name + ".weight" for name in ("query", "key", "value")]
    if encoder["sub_norm"]:
        projections = [
            Rule(f"{theirs}attn.{letter}_proj.weight", name)
            for letter, name in zip("qkv", linear, strict=True)
        ]
    else:
        projections = [Rule(theirs + "attn.qkv.weight", tuple(linear), Split((width, width, width)))]
    layers = {"w1": "gate", "w2": "up", "w3": "down"} if encoder["gated"] else {"fc1": "up", "fc2": "down"}
    return [
        *[Unused(f"{prefix}{name}.{{rest...}}") for name in ("fc_norm", "norm", "head", "rope")],
        Unused(theirs + "attn.rope.{rest...}"),
        Rule(prefix + "patch_embed.proj.{p}", slot + ".patchify.{p}"),
        Rule(prefix + "cls_token", slot + ".class_embedding"),
        Rule(prefix + "pos_embed", slot + ".positions"),
        Rule(theirs + "norm1.{p}", ours + "attention_norm.{p}"),
        Rule(theirs + "norm2.{p}", ours + "mlp_norm.{p}"),
        Rule(theirs + "gamma_1", ours + "attention_scale"),
        Rule(theirs + "gamma_2", ours + "mlp_scale"),
        *projections,
        Rule(theirs + "attn.q_bias", attention + "query.bias"),
        Rule(theirs + "attn.v_bias", attention + "value.bias"),
        Rule(theirs + "attn.inner_attn_ln.{p}", attention + "norm.{p}"),
        Rule(theirs + "attn.proj.{p}", attention + "out.{p}"),
        Rule(theirs + "mlp.ffn_ln.{p}", mlp + "norm.{p}"),
        *[Rule(f"{theirs}mlp.{a}.{{p}}", f"{mlp}{b}.{{p}}") for a, b in layers.items()],
        OwnTensors(slot + ".mean"),
        OwnTensors(slot + ".deviation"),
    ]
