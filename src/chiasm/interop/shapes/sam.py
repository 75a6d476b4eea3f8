"""SAM's image encoder with Meta's names of arguments and tensors (DeepSeek-VL, Vary, PixelLLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chiasm.interop.mapping import OwnTensors, Rule


def sam_encoder(arguments: Mapping[str, Any], global_layers: Sequence[int]) -> dict[str, Any]:
    """The encoder for the arguments of SAM's ImageEncoderViT; what is not among them is as SAM-B has it.

    global_layers: blocks whose attention is over the whole image.
    """
    width = arguments.get("embed_dim", 768)
    return {
        "type": "sam",
        "size": arguments.get("img_size", 1024),
        "patch_size": arguments.get("patch_size", 16),
        "width": width,
        "depth": arguments.get("depth", 12),
        "heads": arguments.get("num_heads", 12),
        "hidden": int(width * arguments.get("mlp_ratio", 4.0)),
        "window": arguments.get("window_size", 14),
        "global_layers": list(global_layers),
        "bias": arguments.get("qkv_bias", True),
        "absolute": arguments.get("use_abs_pos", True),
        "relative": arguments.get("use_rel_pos", True),
        "neck": arguments.get("out_chans", 256),
    }


def sam_rules(prefix: str, slot: str = "encoder") -> list[Rule | OwnTensors]:
    """Rules for the encoder `sam` but for what follows the neck; tensors begin with `prefix`."""
    theirs, ours = prefix + "blocks.{n}.", slot + ".blocks.{n}."
    return [
        Rule(prefix + "patch_embed.proj.{p}", slot + ".patchify.{p}"),
        Rule(prefix + "pos_embed", slot + ".positions"),
        Rule(theirs + "norm1.{p}", ours + "attention_norm.{p}"),
        Rule(theirs + "norm2.{p}", ours + "mlp_norm.{p}"),
        Rule(theirs + "mlp.lin1.{p}", ours + "mlp.0.{p}"),
        Rule(theirs + "mlp.lin2.{p}", ours + "mlp.2.{p}"),
        *attention_rules(theirs, ours),
        Rule(prefix + "neck.{rest...}", slot + ".neck.{rest...}"),
        OwnTensors(slot + ".mean"),
        OwnTensors(slot + ".deviation"),
    ]


def attention_rules(theirs: str, ours: str) -> list[Rule]:
    """Rules for a block's attention, which transformers names as Meta does."""
    return [
        Rule(theirs + "attn.qkv.{p}", ours + "attention.qkv.{p}"),
        Rule(theirs + "attn.proj.{p}", ours + "attention.out.{p}"),
        Rule(theirs + "attn.rel_pos_h", ours + "attention.row_distances"),
        Rule(theirs + "attn.rel_pos_w", ours + "attention.column_distances"),
    ]
