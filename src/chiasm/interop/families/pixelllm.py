"""PixelLLM (arXiv 2312.09237) in Flax: EVA-02 and SAM, a box as a prompt, GIT's decoder, points at words.

Its checkpoints are no files that are read here; cases are, through the same parts and rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chiasm.errors import CheckpointError
from chiasm.interop.config import Config, reader
from chiasm.interop.mapping import Join, NameMap, OwnTensors, Permute, Rule, Unused
from chiasm.interop.shapes.sam import sam_encoder

HEADS, HIDDEN = 8, 2048  # of the two-way transformer, which the original's code never sets
GIT, SAM = "git_visual_features", "sam_visual_features"
TRAINING = "of training"
ABSENT = (  # parts that a config can name beside those that are known
    *("box_decoder_name", "det_backbone_name", "mask_adapter_name", "mask_decoder_name"),
    "visual_project_layers_name",
)
WITHOUT_EFFECT = {
    **{f"{tower}.drop_path_rate": TRAINING for tower in ("git_backbone_args", "sam_backbone_args")},
    **{f"{tower}.freeze_vit_layer": TRAINING for tower in ("git_backbone_args", "sam_backbone_args")},
    "point_predictor_args.zero_out": TRAINING,
    "prompt_adapter_args.head_hidden_dim": "of MLPs with more layers than one",
    "sam_backbone_args.pretrain_img_size": "img_size tells",
    "sam_backbone_args.rel_pos_zero_init": TRAINING,
}


def specification(config: Mapping[str, Any], size: int) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The `model` section, and the arguments of `WordPoints`. size: side in pixels of the images that are read.

    Raises CheckpointError for an option that no part has.
    """
    config = reader(config)
    for name in ABSENT:
        config.only(name, "none")
    towers = _towers(config, size)
    config.only("text_decoder_name", "git")
    text = config["text_decoder_args"]
    text.only("out_feat_fuse_method", "")
    width = text.get("hidden_size", 768)
    vocabulary = config.get("vocab_size", 30522)
    return {
        "views": {"type": "whole", "size": size, "fit": "stretch"},
        "encoder": {"type": "hybrid", "encoders": towers, "sizes": [None] * len(towers), "resize": True},
        "connector": _adapter(config, size),
        "language": {
            "type": "git",
            "width": width,
            "depth": text.get("num_hidden_layers", 6),
            "heads": text.get("num_heads", 12),
            "context": text.get("max_caption_length", 1024),
            "chat_template": "caption",
            "vocab_size": vocabulary,
        },
    }, _points(config, width)


def _towers(config: Config, size: int) -> list[dict[str, Any]]:
    """Those whose features the text decoder reads, in its order."""
    encoders = {GIT: ("git_backbone", "eva02_vit", _eva), SAM: ("sam_backbone", "sam_vit", _sam)}
    key = config.get("text_decoder_feature_key", GIT)
    names = key.split("+")
    unknown = [name for name in names if name not in encoders]
    if unknown:
        raise CheckpointError(
            f"text_decoder_feature_key names {unknown[0]!r}; known are {', '.join(encoders)}"
        )
    towers = []
    for name in names:
        tower, kind, spec = encoders[name]
        config.only(f"{tower}_name", kind)
        towers.append(spec(config[f"{tower}_args"], size))
    return towers


def _eva(config: Config, size: int) -> dict[str, Any]:
    config.only("use_ln_pre", False)
    config.only("pretrain_use_cls_token", True)
    config.only("pe_bias", True)
    config.only("token_mask_probability", -1.0)
    patch, width = config.get("patch_size", 16), config.get("embed_dim", 768)
    return {
        "type": "eva",
        "size": config.get("pretrain_img_size", 224),
        "patch_size": patch,
        "width": width,
        "depth": config.get("depth", 12),
        "heads": config.get("num_heads", 12),
        "hidden": int(width * config.get("mlp_ratio", 4.0)),
        "absolute": config.get("use_abs_pos", True),
        "antialias": True,
        "rotary": size // patch,  # positions count patches, however many there are
        "gated": True,
        "sub_norm": True,
        "sub_attention": False,
        "sub_epsilon": 1e-5,
        "final_norm": config.get("use_ln_post", False),
        "final_epsilon": 1e-6,
    }


def _sam(config: Config, size: int) -> dict[str, Any]:
    config.only("use_ln_pre", False)
    config.only("beit_like_qkv_bias", False)
    config.only("layer_scale_init_value", -1.0)
    depth, trained = config.get("depth", 12), config.get("img_size", 1024)
    if size < trained and config.get("use_rel_pos", True):
        raise CheckpointError(
            f"sam_backbone_args.img_size is {trained}, but images of {size} pixels are read; relative "
            "positions are known to be enlarged only"
        )
    windowed = list(config.get("window_block_indexes", (0, 1, 3, 4, 6, 7, 9, 10)))
    return sam_encoder(config, [i for i in range(depth) if i not in windowed])


def _adapter(config: Config, size: int) -> dict[str, Any]:
    config.only("prompt_encoder_name", "sam_prompt_encoder")
    config.only("prompt_adapter_name", "sam_prompt_adapter")
    config.only("box_point_with_offset", False)
    adapter, prompts = config["prompt_adapter_args"], config.get("prompt_encoder_args", {})
    prompt_width = prompts.get("embed_dim", 256)
    adapter.only("input_embedding_dim", prompt_width)
    return {
        "type": "prompt_adapter",
        "size": size,
        "queries": adapter.get("num_outputs", 32),
        "width": adapter.get("transformer_dim", 256),
        "prompt_width": prompt_width,
        "inner": adapter.get("output_dim", 1024),
        "depth": adapter.get("depth", 2),
        "heads": HEADS,
        "hidden": HIDDEN,
        "prompt": "corners" if config.get("prompt_use_box_rate", 0.0) > 0 else "points",
        "points": config.get("box_points_per_side", 2),
        "reads": {"sparse": "tokens", "dense": "features"}[
            config.only("prompt_fuse_fn", "sparse", "dense", default="sparse")
        ],
    }


def _points(config: Config, width: int) -> dict[str, Any]:
    config.only("point_predictor_name", "mlp_point_predictor")
    options = config.get("point_predictor_args", {})
    return {
        "width": width,
        "hidden": options.get("hidden_dim", 512),
        "depth": options.get("depth", 3),
        "points": options.get("num_output_points", 4),
        "extra": 1 + options.get("num_classes", 1),
        "normed": options.get("pre_norm", False),
        "kind": reader(options).only("mlp_activation", "relu", "gelu"),
    }


def rules(spec: Mapping[str, Mapping[str, Any]], points: Mapping[str, Any]) -> NameMap:
    """Flax paths to ours; the point predictor's are `points.*`."""
    towers = {"eva": _eva_rules, "sam": _sam_rules}
    encoders = spec["encoder"]["encoders"]
    return NameMap(
        *(
            rule
            for i, tower in enumerate(encoders)
            for rule in towers[tower["type"]](tower, f"encoder.encoders.{i}.")
        ),
        *(Unused(f"{each}/{{rest...}}") for each in _unread(encoders)),
        *_adapter_rules(spec["connector"]),
        *_text_rules(),
        *_norm("point_predictor/LayerNorm_0", "points.norm"),
        *(
            rule
            for i in range(points["depth"])
            for rule in _linear(f"point_predictor/mlp/layers.{i}", f"points.layers.{2 * i}")
        ),
    )


def _unread(encoders: Sequence[Mapping[str, Any]]) -> list[str]:
    """Towers whose features nothing reads."""
    types = {each["type"] for each in encoders}
    return [name for kind, name in (("eva", "git_backbone"), ("sam", "sam_backbone")) if kind not in types]


def _linear(theirs: str, ours: str) -> list[Rule]:
    return [
        Rule(theirs + "/kernel", ours + ".weight", Permute((1, 0))),
        Rule(theirs + "/bias", ours + ".bias"),
    ]


def _convolution(theirs: str, ours: str) -> list[Rule]:
    return [
        Rule(theirs + "/kernel", ours + ".weight", Permute((3, 2, 0, 1))),
        Rule(theirs + "/bias", ours + ".bias"),
    ]


def _norm(theirs: str, ours: str) -> list[Rule]:
    return [Rule(theirs + "/scale", ours + ".weight"), Rule(theirs + "/bias", ours + ".bias")]


def _eva_rules(tower: Mapping[str, Any], ours: str) -> list[Rule | OwnTensors]:
    theirs, block = "git_backbone/blocks.{n}/", ours + "blocks.{n}."
    attention = {f"{letter}_proj": name for letter, name in (("q", "query"), ("k", "key"), ("v", "value"))}
    return [
        *_convolution("git_backbone/patch_embed.proj", ours + "patchify"),
        Rule("git_backbone/cls_token", ours + "class_embedding"),
        Rule("git_backbone/pos_embed", ours + "positions"),
        *_norm(theirs + "norm1", block + "attention_norm"),
        *_norm(theirs + "norm2", block + "mlp_norm"),
        *(
            rule
            for a, b in attention.items()
            for rule in _linear(f"{theirs}attn/{a}", f"{block}attention.{b}")[:1]
        ),
        Rule(theirs + "attn/q_bias", block + "attention.query.bias"),
        Rule(theirs + "attn/v_bias", block + "attention.value.bias"),
        *_linear(theirs + "attn/proj", block + "attention.out"),
        *_linear(theirs + "mlp/w1", block + "mlp.gate"),
        *_linear(theirs + "mlp/w2", block + "mlp.up"),
        *_linear(theirs + "mlp/w3", block + "mlp.down"),
        *_norm(theirs + "mlp/ffn_ln", block + "mlp.norm"),
        *_norm("git_backbone/ln_post", ours + "final_norm"),
        OwnTensors(ours + "mean"),
        OwnTensors(ours + "deviation"),
    ]


def _sam_rules(tower: Mapping[str, Any], ours: str) -> list[Rule | OwnTensors]:
    theirs, block = "sam_backbone/blocks.{n}/", ours + "blocks.{n}."
    return [
        *_convolution("sam_backbone/patch_embed.proj", ours + "patchify"),
        Rule("sam_backbone/pos_embed", ours + "positions"),
        *_norm(theirs + "norm1", block + "attention_norm"),
        *_norm(theirs + "norm2", block + "mlp_norm"),
        *_linear(theirs + "attn/qkv", block + "attention.qkv"),
        *_linear(theirs + "attn/proj", block + "attention.out"),
        Rule(theirs + "attn/rel_pos_h", block + "attention.row_distances"),
        Rule(theirs + "attn/rel_pos_w", block + "attention.column_distances"),
        *_linear(theirs + "mlp/lin1", block + "mlp.0"),
        *_linear(theirs + "mlp/lin2", block + "mlp.2"),
        *(rule for i in (0, 2) for rule in _convolution(f"sam_backbone/neck/{i}", f"{ours}neck.{i}")[:1]),
        *(rule for i in (1, 3) for rule in _norm(f"sam_backbone/neck/{i}", f"{ours}neck.{i}")),
        OwnTensors(ours + "mean"),
        OwnTensors(ours + "deviation"),
    ]


def _adapter_rules(adapter: Mapping[str, Any]) -> list[Rule | Unused]:
    prompts, theirs, ours = "prompt_encoder/", "prompt_adapter/", "connector."
    two_way, transformer = theirs + "transformer/", ours + "transformer."
    layer, our_layer = two_way + "layers.{n}/", transformer + "layers.{n}."
    attentions = {
        layer + "self_attn": our_layer + "among",
        layer + "cross_attn_token_to_image": our_layer + "to_image",
        layer + "cross_attn_image_to_token": our_layer + "to_tokens",
        two_way + "final_attn_token_to_image": transformer + "last",
    }
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
    norms = {"norm1": "among_norm", "norm2": "to_image_norm", "norm3": "mlp_norm", "norm4": "image_norm"}
    points = [f"{prompts}point_embeddings.{i}.weight" for i in range(4)]
    nothing = prompts + "not_a_point_embed.weight"
    marks, dead = points[2:], [*points[:2], nothing]
    if adapter["prompt"] == "points":
        marks, dead = [points[1], nothing], [points[0], *points[2:]]
    tokens = adapter["reads"] == "tokens"
    heads = [f"{theirs}output_hypernetworks_mlps.{i}/layers.0" for i in range(adapter["queries"])]
    dense = theirs + "dense_output_mlp/layers.0"
    read, unread = (heads, [dense]) if tokens else ([dense], heads)
    return [
        *(Unused(each) for each in dead),
        *(Unused(f"{each}/{{p}}") for each in unread),
        Unused(prompts + "mask_downscaling/{rest...}"),
        Rule(tuple(marks), ours + "marks", Join((1, 1))),
        Rule(prompts + "no_mask_embed.weight", ours + "filler"),
        Rule(prompts + "pe_layer/positional_encoding_gaussian_matrix", ours + "frequencies"),
        Rule(theirs + "output_tokens.weight", ours + "queries"),
        *_linear(theirs + "image_projection_mlp/layers.0", ours + "project"),
        *_linear(theirs + "prompt_embedding_projection_mlp/layers.0", ours + "project_prompt"),
        *_linear(theirs + "image_pe_projection_mlp/layers.0", ours + "project_positions"),
        *(
            rule
            for a, b in attentions.items()
            for c, d in names.items()
            for rule in _linear(f"{a}/{c}", f"{b}.{d}")
        ),
        *(rule for a, b in norms.items() for rule in _norm(layer + a, our_layer + b)),
        *_linear(layer + "mlp/lin1", our_layer + "mlp.0"),
        *_linear(layer + "mlp/lin2", our_layer + "mlp.2"),
        *_norm(two_way + "norm_final_attn", transformer + "norm"),
        *(rule for i, each in enumerate(read) for rule in _linear(each, f"{ours}outputs.{i}")),
        *_linear("textual/visual_projection.0", ours + "out"),
        *_norm("textual/visual_projection.1", ours + "norm"),
    ]


def _text_rules() -> list[Rule]:
    theirs, ours = "textual/transformer/encoder/layer.{n}/", "language.layers.{n}."
    layers = {
        **{f"attention/self/{name}": name for name in ("query", "key", "value")},
        **{"attention/output/dense": "out", "intermediate/dense": "network.0", "output/dense": "network.2"},
    }
    return [
        Rule("textual/embedding/words/embedding", "language.table.weight"),
        Rule("textual/embedding/positions/embedding", "language.positions.weight"),
        *_norm("textual/embedding/layer_norm", "language.norm"),
        *(rule for a, b in layers.items() for rule in _linear(theirs + a, ours + b)),
        *_norm(theirs + "attention/output/LayerNorm", ours + "attention_norm"),
        *_norm(theirs + "output/LayerNorm", ours + "network_norm"),
        *_linear("textual/output", "language.readout"),
    ]
