"""mPLUG-Owl's vision tower and visual abstractor in their own names (mPLUG-Owl, UReader, DocOwl-1.5, Honeybee)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm.interop.config import reader
from chiasm.interop.mapping import OwnTensors, Reshape, Rule, Unused
from chiasm.interop.shapes.internlm2 import GroupedQKV
from chiasm.interop.shapes.towers import causal_config, tower
from chiasm.language.special import READ
from chiasm.routing.modality_adaptive import MODULES

# Of the tower, where its config is silent; the size of images is the system's.
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
}
# What does not reach the numbers, at any depth of the configs of these systems.
WITHOUT_EFFECT = {
    "*.attention_dropout": "of training",
    "*.attention_probs_dropout_prob": "of training",
    "*.initializer_factor": "of weights at the start",
    "*.initializer_range": "of weights at the start",
    "*.num_channels": "images have three",
    "*.projection_dim": "of CLIP's training",
    "*.use_flash_attn": "speed only",
}
# Settings of the training script, which it leaves in a config of mPLUG-Owl2 or DocOwl-1.5.
TRAINING = {
    "freeze_backbone": "of training",
    "freeze_vision_model": "of training",
    "image_aspect_ratio": "of an older way to prepare images, which the code has no more",
    "image_grid_pinpoints": "of an older way to prepare images, which the code has no more",
    "tune_vision2text": "of training",
    "tune_visual_abstractor": "of training",
    "vision2text_lr": "of training",
    "visual_abstractor_lr": "of training",
}
# mPLUG-Owl2's conversation.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}USER: {{ message['content'] }} "
    "{% elif message['role'] == 'assistant' %}ASSISTANT: {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }} {% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# DocOwl-1.5's: the words before a crop follow USER: as one text, of which they bring the space.
TEMPLATE_OF_NAMED = TEMPLATE.replace(
    "USER: {{ message['content'] }} ",
    "{{ ('USER:' if message['content'].startswith('"
    + READ
    + "') else 'USER: ') + message['content'] + ' ' }}",
)
# Layers of the tower: theirs and CLIP's of transformers.
LAYERS = {
    "self_attn.dense": "self_attn.out_proj",
    "input_layernorm": "layer_norm1",
    "post_attention_layernorm": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
# Layers of the abstractor: theirs and ours.
CROSS = {
    "attention.query": "query",
    "attention.key": "key",
    "attention.value": "value",
    "norm1": "query_norm",
    "normk": "feature_norm",
    "output.out_proj": "output",
    "output.norm2": "mlp_norm",
    "output.mlp.w1": "gate",
    "output.mlp.w2": "down",
    "output.mlp.w3": "up",
    "output.mlp.ffn_ln": "hidden_norm",
}


def vision_tower(config: Mapping[str, Any], size: int, *, class_token: str) -> dict[str, Any]:
    """The encoder for a config of the tower, which is CLIP's with other names and its final norm.

    size: side of images in pixels where the config is silent. The original's activation is fixed.
    """
    config.get("hidden_act")
    values = {key: config.get(key, default) for key, default in {**VISION, "image_size": size}.items()}
    values["hidden_act"] = "quick_gelu"
    return tower(values, "clip_vision_model", layer=-1, final_norm=True, class_token=class_token)


def vision_rules(config: Mapping[str, Any], size: int, theirs: str) -> list[Rule | OwnTensors]:
    """Rules for the tower whose tensors' names begin with `theirs`; config, size: as of `vision_tower`."""
    width, heads = (config.get(key, VISION[key]) for key in ("hidden_size", "num_attention_heads"))
    side = config.get("image_size", size) // config.get("patch_size", VISION["patch_size"])
    ours, layer = "encoder.model.", "encoder.layers.{n}."
    qkv = tuple(f"{ours}{layer}self_attn.{name}_proj.{{p}}" for name in "qkv")
    places = (side**2 + 1, width)
    return [
        Rule(
            f"{theirs}embeddings.cls_token",
            f"{ours}embeddings.class_embedding",
            Reshape((1, 1, width), (width,)),
        ),
        Rule(f"{theirs}embeddings.patch_embed.{{p}}", f"{ours}embeddings.patch_embedding.{{p}}"),
        Rule(
            f"{theirs}embeddings.position_embedding",
            f"{ours}embeddings.position_embedding.weight",
            Reshape((1, *places), places),
        ),
        Rule(f"{theirs}embeddings.pre_layernorm.{{p}}", f"{ours}pre_layrnorm.{{p}}"),
        Rule(f"{theirs}{layer}self_attn.query_key_value.{{p}}", qkv, GroupedQKV(heads, 1)),
        *[Rule(f"{theirs}{layer}{a}.{{p}}", f"{ours}{layer}{b}.{{p}}") for a, b in LAYERS.items()],
        Rule(f"{theirs}post_layernorm.{{p}}", "encoder.final_norm.{p}"),
        OwnTensors("encoder.mean"),
        OwnTensors("encoder.deviation"),
    ]


def abstractor(config: Mapping[str, Any], width: int, *, hidden: int) -> dict[str, Any]:
    """The connector `visual_abstractor`, but for its queries, for a config of the abstractor.

    width: of the features, which is its own. hidden: width of its MLPs where the config is silent.
    Raises CheckpointError for a config with another width.
    """
    config = reader(config)
    for key in ("hidden_size", "encoder_hidden_size"):
        config.only(key, width, default=1024)
    return {
        "type": "visual_abstractor",
        "depth": config.get("num_hidden_layers", 6),
        "heads": config.get("num_attention_heads", 16),
        "hidden": config.get("intermediate_size", hidden),
        "epsilon": config.get("layer_norm_eps", 1e-6),
    }


def abstractor_rules(theirs: str, ours: str) -> list[Rule]:
    """Rules for the layers of an abstractor; theirs, ours: what its tensors' names begin with."""
    layer, own = f"{theirs}encoder.layers.{{n}}.crossattention.", f"{ours}layers.{{n}}."
    return [
        *[Rule(f"{layer}{a}.{{p}}", f"{own}{b}.{{p}}") for a, b in CROSS.items()],
        Rule(f"{layer}attention.q_pos_embed", f"{own}query_positions"),
        Rule(f"{layer}attention.k_pos_embed", f"{own}feature_positions"),
    ]


def multiway_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model `causal` for a config of mPLUG-Owl2's kind, whose visual parts are its `visual_config`."""
    own = {"visual_config", *TRAINING}
    return causal_config({key: config[key] for key in config if key not in own}, "llama")


def multiway_rules() -> list[Rule | Unused]:
    """Rules for that language model, of which words have `multiway.0` and image tokens `multiway.1`."""
    theirs, ours = "model.layers.{n}.", "language.inner.model.layers.{n}."
    images = "routing.layers.inner/model/layers/{n}/"
    return [
        Unused(f"{theirs}self_attn.rotary_emb.inv_freq"),
        *[
            rule
            for name in MODULES
            for rule in (
                Rule(f"{theirs}{name}.multiway.0.{{p}}", f"{ours}{name}.{{p}}"),
                Rule(f"{theirs}{name}.multiway.1.{{p}}", f"{images}{name.replace('.', '/')}.ways.0.{{p}}"),
            )
        ],
        Rule("model.{rest...}", "language.inner.model.{rest...}"),
        Rule("lm_head.{p}", "language.inner.lm_head.{p}"),
    ]


def closing_rule(theirs: str, width: int) -> Rule:
    """Of `vit_eos`, the learnt token behind those of every view; width: of the language model."""
    return Rule(theirs, "connector.closing.table", Reshape((1, 1, width), (1, width)))
