"""PSALM (arXiv 2403.14598): Swin, Phi-1.5, mask queries that pass through it, and Mask2Former's decoders."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from chiasm.errors import CheckpointError, nearest
from chiasm.interop.config import EVERYWHERE, Config, known_value, reader
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap, Rule, Transform, Unused
from chiasm.interop.shapes.internlm2 import GroupedQKV
from chiasm.interop.shapes.swin import SIZES, TRAINING, swin, swin_rules
from chiasm.interop.shapes.towers import causal_config

LEVELS = ["res2", "res3", "res4", "res5"]  # of the tower, at strides of 4, 8, 16 and 32
IMAGE_SIZE = 1024  # of the original's mappers
PADDING = (128, 128, 128)  # of detectron2's FixedSizeCrop
PLANES, HIDDEN = (
    2048,
    1024,
)  # channels of the projector and of the pixel decoder's MLPs, which stand in the code
# mask_config/maskformer2_swin_base_384_bs16_50ep.yaml, where it reaches the numbers; the checkpoint has no copy.
MASK_FORMER = {
    **{"HIDDEN_DIM": 256, "NUM_OBJECT_QUERIES": 100, "NHEADS": 8, "DIM_FEEDFORWARD": 2048, "DEC_LAYERS": 10},
    **{"PRE_NORM": False, "SEG_NORM": False, "SEG_PROJ": True, "FUSE_SCORE": False},
    **{"CLASS_WEIGHT": 2.0, "MASK_WEIGHT": 5.0, "DICE_WEIGHT": 5.0},
}
SEM_SEG_HEAD = {
    **{"CONVS_DIM": 256, "MASK_DIM": 256, "COMMON_STRIDE": 4, "TRANSFORMER_ENC_LAYERS": 6},
    "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": LEVELS[1:],
}
# Keys of config.json that are not of its language model.
OWN = {
    "freeze_mm_mlp_adapter": "of training",
    "image_aspect_ratio": "images are read as the original's mappers prepare them",
    "image_grid_pinpoints": "images are read whole",
    "mm_hidden_size": "of another tower",
    "mm_use_im_patch_token": "of training",
    "mm_vision_tower": "where the tower began",
    "tune_mm_mlp_adapter": "of training",
    "use_mm_proj": "there is a projector",
    "with_layernorm": "of another projector",
    "with_norm": "of another projector",
}
CHECKED = (
    "mask_decode_train",
    "mm_input_embeds",
    "mm_projector_type",
    "mm_use_im_start_end",
    "projector_outdim",
)
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
# The original's conversation llava_phi, in the form of LLaMA-2's.
TURNS = (
    "{% set begun = namespace(value=false) %}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + ' ' + eos_token }}{% elif message['role'] == 'user' %}"
    "{% if begun.value %}{{ eos_token + '[INST] ' }}{% else %}{{ '[INST] <<SYS>>\\n"
    + SYSTEM.replace("'", "\\'")
    + "\\n<</SYS>>\\n\\n' }}{% endif %}{% set begun.value = true %}{{ message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)


class Psalm(Family, name="psalm"):
    """The layout of EnmingZhang/PSALM and its training code (github.com/zamling/PSALM).

    Its config here is `{phi, swin, mask_cfg, projector_planes, pixel_decoder_ffn}`: the folder's config.json, and
    what stands in the original's code and in the YAML file of its mask decoder.
    """

    looks_for = "config.json with model_type llava_phi and mask_decode_train"
    own_conversation = True

    without_effect: ClassVar = {
        **EVERYWHERE,
        **{f"phi.{key}": reason for key, reason in OWN.items()},
        **{f"swin.{key}": "of training" for key in TRAINING},
        "swin.pretrain_img_size": "of learnt positions, which there are none of",
        "num_sample_point": "of regions with more pixels, of which the original draws some",
        **{
            f"mask_cfg.MODEL.MASK_FORMER.{key}": "of training"
            for key in (
                *("DEEP_SUPERVISION", "DROPOUT", "IMPORTANCE_SAMPLE_RATIO", "NO_OBJECT_WEIGHT"),
                *("OVERSAMPLE_RATIO", "TRAIN_NUM_POINTS"),
            )
        },
        "mask_cfg.MODEL.MASK_FORMER.SEG_TASK": "what is made of masks and scores",
        "mask_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES": "classes are named in the prompt",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "llava_phi" and "mask_decode_train" in folder.config

    def read(self, folder: Folder) -> Original:
        size = folder.config.get("swin_type", "base")
        if size not in SIZES:
            raise CheckpointError(f"{folder.path}: swin_type is {size!r}{nearest(size, SIZES)}")
        tensors = dict(folder.tensors)
        normed = any(key.startswith("predictor.SEG_norm.") for key in tensors)
        tower = {**SIZES[size], "mlp_ratio": 4.0}
        out = {"EMBED_DIM": tower["embed_dim"], "DEPTHS": tower["depths"], "OUT_FEATURES": LEVELS}
        model = {
            "MASK_FORMER": {**MASK_FORMER, "SEG_NORM": normed},
            "SEM_SEG_HEAD": SEM_SEG_HEAD,
            "SWIN": out,
        }
        return Original({"phi": folder.config, "swin": tower, "mask_cfg": {"MODEL": model}}, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        encoder = swin(config["swin"])
        return {
            "views": {"type": "corner", "size": IMAGE_SIZE, "padding": PADDING},
            "encoder": encoder,
            "connector": {"type": "residual", "width": config.get("projector_planes", PLANES)},
            "language": _language(config["phi"], encoder),
            "heads": {
                "mask": _head(config["mask_cfg"]["MODEL"], config.get("pixel_decoder_ffn", HIDDEN), encoder)
            },
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config, keys)
        return NameMap(
            *swin_rules(spec["encoder"], "model.vision_tower."),
            *_projector_rules("model.mm_projector."),
            *_head_rules(spec["heads"]["mask"]),
            *_language_rules(spec["language"]["config"]),
        )

    def chat_template(self, config: Mapping[str, Any]) -> str:
        return TURNS

    def write(self, original: Original, folder: Path) -> None:
        super().write(Original(original.config["phi"], original.tensors, original.borrowed), folder)


def _language(phi: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, Any]:
    phi = reader(phi)
    phi.only("mm_projector_type", "swin_conv")
    phi.only("mm_use_im_start_end", False)
    phi.only("mask_decode_train", True)
    width = encoder["width_of_patches"] * 2 ** (len(encoder["depths"]) - 1)
    phi.only("mm_input_embeds", width)
    phi.only("projector_outdim", phi["hidden_size"])
    phi.only("num_key_value_heads", phi["num_attention_heads"], None)
    others = {*OWN, *CHECKED, "swin_type", "model_type", "num_key_value_heads"}
    phi.get("swin_type")  # read by the folder's reader
    return causal_config({**{key: phi[key] for key in phi if key not in others}, "model_type": "phi"}, "phi")


def _head(model: Config, pixel_hidden: int, encoder: Mapping[str, Any]) -> dict[str, Any]:
    former, head = model["MASK_FORMER"], model["SEM_SEG_HEAD"]
    former.only("FUSE_SCORE", False)
    place = "mask_cfg.MODEL.SWIN."
    known_value(place + "EMBED_DIM", model["SWIN"]["EMBED_DIM"], encoder["width_of_patches"])
    known_value(place + "DEPTHS", list(model["SWIN"]["DEPTHS"]), list(encoder["depths"]))
    known_value(place + "OUT_FEATURES", list(model["SWIN"]["OUT_FEATURES"]), LEVELS)
    joined = list(head["DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"])
    known_value(
        "mask_cfg.MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES",
        joined,
        *(LEVELS[i:] for i in range(len(LEVELS))),
    )
    finest, common = 4 * 2 ** (len(LEVELS) - len(joined)), head["COMMON_STRIDE"]
    return {
        "type": "mask2former",
        "queries": former["NUM_OBJECT_QUERIES"],
        "width": former["HIDDEN_DIM"],
        "mask_width": head["MASK_DIM"],
        "pixel_width": head["CONVS_DIM"],
        "heads": former["NHEADS"],
        "hidden": former["DIM_FEEDFORWARD"],
        "depth": former["DEC_LAYERS"] - 1,  # the original counts the loss before the first layer too
        "pixel_hidden": pixel_hidden,
        "pixel_depth": head["TRANSFORMER_ENC_LAYERS"],
        "attended": len(joined),
        "fused": int(math.log2(finest) - math.log2(common)),
        "prenorm": former["PRE_NORM"],
        "normed": former["SEG_NORM"],
        "projected": former["SEG_PROJ"],
        "conditions": ["sentence", "classes", "regions"],
        "mask_weight": former["MASK_WEIGHT"],
        "dice_weight": former["DICE_WEIGHT"],
        "score_weight": former["CLASS_WEIGHT"],
    }


def _projector_rules(theirs: str) -> list[Rule]:
    layers = {
        **{"conv1": "halve", "bn1": "halved_norm", "conv2": "refine", "bn2": "refined_norm"},
        **{"downsample.0": "shortcut.0", "downsample.1": "shortcut.1"},
    }
    return [
        *(Rule(f"{theirs}layer1.0.{a}.{{p}}", f"connector.{b}.{{p}}") for a, b in layers.items()),
        Rule(theirs + "fc.{p}", "connector.out.{p}"),
    ]


def _language_rules(config: Mapping[str, Any]) -> list[Rule | Unused]:
    layer, heads = "model.layers.{n}.self_attn.", config.get("num_attention_heads", 32)
    qkv = tuple(f"language.inner.{layer}{part}_proj.{{p}}" for part in "qkv")
    head = tuple(f"language.inner.lm_head.{kind}" for kind in ("weight", "bias"))
    return [
        Unused(layer + "rotary_emb.inv_freq"),
        Rule(f"{layer}query_key_value.{{p}}", qkv, GroupedQKV(heads, 1)),
        Rule("lm_head.weight", head, WithoutBias()),
        Rule("model.{rest...}", "language.inner.model.{rest...}"),
    ]


@dataclass(frozen=True)
class WithoutBias(Transform):
    """A layer that has no bias in theirs; ours is 0, and has to be on export."""

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [theirs[0], theirs[0].new_zeros(theirs[0].shape[0])]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        if bool(ours[1].any()):
            raise ValueError("the bias is not 0, which their layout has no place for")
        return [ours[0]]


def _head_rules(head: Mapping[str, Any]) -> list[Rule | Unused]:
    ours = "heads.mask."
    layer = ours + "decoder.layers.{n}."
    conditions = {"sentence": ("SEG_token", "SEG", "seg"), "classes": ("class_name", "CLASS", "class_name")}
    conditions["regions"] = ("region", "REGION", "")
    rules: list[Rule | Unused] = [
        Rule("seg_query", ours + "queries"),
        Rule("seg_query_projector.{p}", ours + "project.{p}"),
        Unused("predictor.query_feat.weight"),
        Unused("predictor.SEG_query_embed.weight"),
        Rule("predictor.query_embed.weight", ours + "decoder.positions"),
        Rule("predictor.level_embed.weight", ours + "decoder.level_embeddings"),
        Rule("predictor.input_proj.{i}.{p}", ours + "decoder.projections.{i}.{p}"),
        Rule("predictor.decoder_norm.{p}", ours + "decoder.norm.{p}"),
        *_mlp_rules("predictor.mask_embed", ours + "decoder.mask", 3),
        Rule(
            "predictor.transformer_cross_attention_layers.{n}.multihead_attn.{p...}", layer + "cross.{p...}"
        ),
        Rule("predictor.transformer_cross_attention_layers.{n}.norm.{p}", layer + "cross_norm.{p}"),
        Rule("predictor.transformer_self_attention_layers.{n}.self_attn.{p...}", layer + "attention.{p...}"),
        Rule("predictor.transformer_self_attention_layers.{n}.norm.{p}", layer + "norm.{p}"),
        Rule("predictor.transformer_ffn_layers.{n}.linear1.{p}", layer + "mlp.0.{p}"),
        Rule("predictor.transformer_ffn_layers.{n}.linear2.{p}", layer + "mlp.2.{p}"),
        Rule("predictor.transformer_ffn_layers.{n}.norm.{p}", layer + "mlp_norm.{p}"),
    ]
    for kind, (projector, query, _) in conditions.items():
        rules.append(Rule(f"{projector}_projector.{{p}}", f"{ours}conditions.{kind}.project.{{p}}"))
        rules += (
            _mlp_rules(f"predictor.{query}_proj", f"{ours}conditions.{kind}.query", 2)
            if head["projected"]
            else [Unused(f"predictor.{query}_proj.{{rest...}}")]
        )
    for kind, norm in (("sentence", "SEG_norm"), ("classes", "class_name_norm")):
        rules.append(Rule(f"predictor.{norm}.{{p}}", f"{ours}conditions.{kind}.norm.{{p}}"))
        after = f"predictor.{conditions[kind][2]}_proj_after_norm"
        rules += _mlp_rules(after, f"{ours}conditions.{kind}.condition", 2)
    return rules + _pixel_rules(head, ours + "pixel_decoder.")


def _pixel_rules(head: Mapping[str, Any], ours: str) -> list[Rule | Unused]:
    theirs = "pixel_decoder.transformer.encoder.layers.{n}."
    layers = {
        **{
            "self_attn.sampling_offsets": "attention.offsets",
            "self_attn.attention_weights": "attention.weights",
        },
        **{"self_attn.value_proj": "attention.value", "self_attn.output_proj": "attention.output"},
        **{"norm1": "attention_norm", "norm2": "mlp_norm", "linear1": "mlp.0", "linear2": "mlp.2"},
    }
    return [
        Rule("pixel_decoder.input_proj.{i}.{j}.{p}", ours + "projections.{i}.{j}.{p}"),
        Rule("pixel_decoder.transformer.level_embed", ours + "level_embeddings"),
        *(Rule(f"{theirs}{a}.{{p}}", f"{ours}layers.{{n}}.{b}.{{p}}") for a, b in layers.items()),
        *(
            Rule(f"pixel_decoder.{a}_{i + 1}.{{j}}.{{p}}", f"{ours}{b}.{i}.{{j}}.{{p}}")
            for a, b in (("adapter", "lateral"), ("layer", "smooth"))
            for i in range(head["fused"])
        ),
        Rule("pixel_decoder.mask_features.{p}", ours + "mask_features.{p}"),
    ]


def _mlp_rules(theirs: str, ours: str, depth: int) -> list[Rule]:
    return [Rule(f"{theirs}.layers.{i}.{{p}}", f"{ours}.{2 * i}.{{p}}") for i in range(depth)]
