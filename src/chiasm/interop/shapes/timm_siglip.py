"""SigLIP towers with timm's tensor names (DeepSeek-VL, Janus), as the encoder `transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm.errors import CheckpointError, nearest
from chiasm.interop.mapping import OwnTensors, Reshape, Rule, Split, Unused
from chiasm.interop.shapes.towers import settings, tower

# The structures that DeepSeek's configs only name.
KNOWN = {
    "siglip_so400m_patch14_384": {"patch_size": 14, "width": 1152, "layers": 27, "heads": 16, "mlp_ratio": 3.7362},
    "siglip_so400m_patch14_224": {"patch_size": 14, "width": 1152, "layers": 27, "heads": 16, "mlp_ratio": 3.7362},
    "siglip_large_patch16_384": {"patch_size": 16, "width": 1024, "layers": 24, "heads": 16, "mlp_ratio": 4},
}  # fmt: skip


def siglip(params: Mapping[str, Any], shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder for a tower's `params` (model_name, image_size, select_layer).

    shapes: further structures by name. A tower is built only up to its `select_layer`; the
    final norm follows whatever the layer.
    """
    name = params.get("model_name", "siglip_large_patch16_384")
    if name not in shapes and name not in KNOWN:
        raise CheckpointError(f"the vision tower is {name!r}{nearest(name, [*KNOWN, *shapes])}")
    if params.get("select_feature", "same") == "patch":
        raise CheckpointError(
            "select_feature is 'patch', which takes away a class token, but SigLIP has none; it would be 'same'"
        )
    shape: Any = shapes[name] if name in shapes else KNOWN[name]
    select = params.get("select_layer", -1)
    layers = shape["layers"] + select + 1 if select <= 0 else select
    config = {
        "model_type": "siglip_vision_model",
        "hidden_size": shape["width"],
        "intermediate_size": int(shape["width"] * shape["mlp_ratio"]),
        "num_hidden_layers": min(layers, shape["layers"]),
        "num_attention_heads": shape["heads"],
        "image_size": params["image_size"],
        "patch_size": shape["patch_size"],
        "hidden_act": "gelu",  # exact, where SigLIP's own approximates by tanh
        "layer_norm_eps": 1e-6,
        "vision_use_head": False,
    }
    return tower(config, "siglip_vision_model", layer=-1, final_norm=True)


def siglip_rules(
    encoder: Mapping[str, Any], prefix: str, slot: str = "encoder"
) -> list[Rule | Unused | OwnTensors]:
    """Rules for a tower whose tensors begin with `prefix`; timm's pooling is unused."""
    built = settings(encoder["config"])
    width, patches = built.hidden_size, (built.image_size // built.patch_size) ** 2
    theirs, ours = prefix + "blocks.{n}.", slot + ".model.encoder.layers.{n}."
    parts = tuple(f"{ours}self_attn.{letter}_proj.{{p}}" for letter in "qkv")
    return [
        Unused(prefix + "attn_pool.{rest...}"),
        Rule(prefix + "patch_embed.proj.{p}", slot + ".model.embeddings.patch_embedding.{p}"),
        Rule(
            prefix + "pos_embed",
            slot + ".model.embeddings.position_embedding.weight",
            Reshape((1, patches, width), (patches, width)),
        ),
        Rule(theirs + "norm1.{p}", ours + "layer_norm1.{p}"),
        Rule(theirs + "norm2.{p}", ours + "layer_norm2.{p}"),
        Rule(theirs + "attn.qkv.{p}", parts, Split((width, width, width))),
        Rule(theirs + "attn.proj.{p}", ours + "self_attn.out_proj.{p}"),
        Rule(theirs + "mlp.{rest...}", ours + "mlp.{rest...}"),
        Rule(prefix + "norm.{p}", slot + ".final_norm.{p}"),
        OwnTensors(slot + ".mean"),
        OwnTensors(slot + ".deviation"),
    ]
