"""Honeybee (arXiv 2312.06742) in its own layout (github.com/kakaobrain/honeybee)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError, nearest
from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Reshape, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.mplug_owl import abstractor_rules
from chiasm.interop.shapes.towers import (
    causal_config,
    channels,
    deviations,
    normalisation,
    tower,
    tower_rules,
)
from chiasm.sequence import IGNORE
from chiasm.views import Size

IMAGE = -1  # the id at each visual token
PROJECTORS = ("mlp", "c-abs", "d-abs", "resampler")
POSITIONS = {"abstractor.pos_emb", "abstractor.v_pos_emb"}
CLASS = ".class"  # behind the name, where `read` has put the class token's position aside
TOWER = "vision_model.vision_model."
POOLED = {"none": "none", "query": "query", "tgt": "target"}
OF_LANGUAGE = (
    "pretrained_lm_name_or_path",
    "pretrained_tokenizer_name_or_path",
    "delta_model_name_or_path",
)
# Fields of Deformable DETR's config, which a D-Abstractor's holds whole.
OF_DETECTOR = (
    "auxiliary_loss", "backbone", "backbone_config", "backbone_kwargs", "bbox_cost", "bbox_loss_coefficient",
    "class_cost", "decoder_layerdrop", "dice_loss_coefficient", "dilation", "encoder_attention_heads",
    "encoder_ffn_dim", "encoder_layerdrop", "encoder_layers", "encoder_n_points", "eos_coefficient", "focal_alpha",
    "giou_cost", "giou_loss_coefficient", "init_std", "init_xavier_std", "mask_loss_coefficient",
    "max_position_embeddings", "num_channels",
    "position_embedding_type", "return_intermediate", "two_stage", "two_stage_num_proposals", "use_timm_backbone",
    "with_box_refine",
)  # fmt: skip
# Fields of the vision config that are not its tower's.
OF_VISION = ("encoder_type", "pretrained_vision_name_or_path", "image_mean", "image_std")
# Their names in a bottleneck, and ours.
BOTTLENECK = (
    ("conv1.conv", "expand"),
    ("conv1.bn", "expand_norm"),
    ("conv2.conv", "filter"),
    ("conv2.bn", "filter_norm"),
    ("se.fc1", "squeeze"),
    ("se.fc2", "excite"),
    ("conv3.conv", "project"),
    ("conv3.bn", "project_norm"),
    ("downsample.conv", "shortcut"),
    ("downsample.bn", "shortcut_norm"),
)
DECODER = (
    ("self_attn.q_proj", "query"),
    ("self_attn.k_proj", "key"),
    ("self_attn.v_proj", "value"),
    ("self_attn.out_proj", "output"),
    ("self_attn_layer_norm", "self_norm"),
    ("encoder_attn.sampling_offsets", "look.offsets"),
    ("encoder_attn.attention_weights", "look.weights"),
    ("encoder_attn.value_proj", "look.value"),
    ("encoder_attn.output_proj", "look.output"),
    ("encoder_attn_layer_norm", "look_norm"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("final_layer_norm", "mlp_norm"),
)
TEMPLATE = (
    "{{ bos_token }}The following is a conversation between a curious human and AI assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.{{ '\\n' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}Human: {{ message['content'] }}{{ '\\n' }}"
    "{% elif message['role'] == 'assistant' %}AI: {{ message['content'] }}{{ eos_token }}{{ '\\n' }}"
    "{% else %}{{ message['content'] }}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}AI:{% endif %}"
)


class Honeybee(Family, name="honeybee"):
    """`config.json` of the original, whose language model's config is `text_config` (or in `lm_config`)."""

    looks_for = "config.json with projector_config.projector_type one of mlp, c-abs, d-abs, resampler"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "is_composition": "bookkeeping of transformers",
        "hidden_size": "the tensors tell",
        "vision_config.pretrained_vision_name_or_path": "of weights at the start",
        "vision_config.image_mean": "taken over by the encoder",
        "vision_config.image_std": "taken over by the encoder",
        **{f"lm_config.{key}": "of weights at the start" for key in OF_LANGUAGE},
        "*.prenorm": "of the projectors mlp and c-abs, which read it",
        **{
            f"{place}.{key}": "of the detector whose decoder a D-Abstractor is"
            for place in ("projector_config", "visual_projector_config")
            for key in OF_DETECTOR
        },
        "*.use_pretrained_backbone": "of weights at the start",
        "*.disable_custom_kernels": "speed only",
        "*.manual_init_refPoints": "of weights at the start",
        "*.num_query_tokens": "counts of tokens follow from the parts",
        "*.dropout": "of training",
        "*.attention_dropout": "of training",
        "*.activation_dropout": "of training",
        "*.attention_probs_dropout_prob": "of training",
        "*.hidden_dropout_prob": "of training",
        "*.initializer_range": "of weights at the start",
        "tie_word_embeddings": "the tensors tell",
        "*.encoder_hidden_size": "the tensors tell",
        "*.output_hidden_size": "the tensors tell",
    }

    def recognises(self, folder: Folder) -> bool:
        projector = folder.config.get("projector_config", folder.config.get("visual_projector_config"))
        return isinstance(projector, dict) and projector.get("projector_type") in PROJECTORS

    def read(self, folder: Folder) -> Original:
        """Old checkpoints have a position for the class token too, which no projector reads."""
        tensors, count = dict(folder.tensors), _side(folder.config["vision_config"]) ** 2
        for name in POSITIONS & tensors.keys():
            if tensors[name].shape[1] == count + 1:
                tensors[name + CLASS], tensors[name] = tensors[name].split((1, count), 1)
        return Original(folder.config, tensors)

    def write(self, original: Original, folder: Path) -> None:
        tensors = dict(original.tensors)
        for name in [each for each in tensors if each.endswith(CLASS)]:
            own = name.removesuffix(CLASS)
            tensors[own] = torch.cat([tensors.pop(name), tensors[own]], 1)
        super().write(Original(original.config, tensors), folder)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        vision, projector = config["vision_config"], _projector(config)
        layer = projector.get("feature_layer_index", -1)
        text = config.get("text_config", config.get("lm_config"))
        known_value("encoder_type", vision.get("encoder_type", "openai.clip"), "openai.clip")
        return {
            "views": {"type": "whole", "size": vision.get("image_size", 224)},
            "encoder": tower(_of_tower(vision), "clip_vision_model", layer=layer),
            "connector": _connector(projector, _side(vision)),
            "language": causal_config(text, text.get("model_type", "llama")),
        }

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec, projector, side = self.model(config), _projector(config), _side(config["vision_config"])
        connector, kind = spec["connector"], projector["projector_type"]
        features, language_width = (
            config["vision_config"]["hidden_size"],
            spec["language"]["config"]["hidden_size"],
        )
        between: int = connector.get("width") or features
        position_table, ends = ("v_pos_emb", "eos_tokens") if kind == "d-abs" else ("pos_emb", "eos_tokens")
        ends = "vit_eos" if kind == "resampler" else ends
        of_positions, of_ends = (between, between) if kind == "d-abs" else (features, language_width)
        rules = [
            Rule(
                f"abstractor.{position_table}",
                "connector.positions.table",
                Reshape((1, side**2, of_positions), (side, side, of_positions)),
            ),
            Rule(
                f"abstractor.{ends}",
                "connector.closing.table",
                Reshape((1, connector["closing"], of_ends), (connector["closing"], of_ends)),
            ),
            Rule("abstractor.prenorm.{p}", "connector.prenorm.{p}"),
        ]
        return NameMap(
            *tower_rules(spec["encoder"], TOWER),
            *rules,
            Unused(f"abstractor.{{p}}{CLASS}"),
            *_own_rules(kind, connector),
            Unused("language_model.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("language_model.{rest...}", "language.inner.{rest...}"),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        vision = folder.config.get("vision_config", {})
        if "image_mean" in vision and "image_std" in vision:
            return {
                "encoder.mean": channels(vision["image_mean"], "image_mean"),
                "encoder.deviation": deviations(vision["image_std"], "image_std"),
            }
        return normalisation(folder)


def _projector(config: Mapping[str, Any]) -> dict[str, Any]:
    if "projector_config" in config:
        return config["projector_config"]
    # Old configs say it so, and keep the count outside.
    return {**config["visual_projector_config"], "num_query_tokens": config.get("num_query_tokens")}


def _of_tower(vision: Mapping[str, Any]) -> dict[str, Any]:
    return {key: vision[key] for key in vision if key not in OF_VISION}


def _side(vision: Mapping[str, Any]) -> int:
    return vision.get("image_size", 224) // vision.get("patch_size", 32)


def _connector(projector: Mapping[str, Any], side: int) -> dict[str, Any]:
    kind = projector["projector_type"]
    shared: dict[str, Any] = {
        "closing": projector.get("num_eos_tokens", 0),
        "positions": (side, side) if projector.get("pos_emb") else None,
    }
    if kind == "mlp":
        return {"type": "honeybee_mlp", "depth": projector["depth"], "prenorm": _prenorm(projector), **shared}
    if kind == "c-abs":
        options = {
            "type": "c_abstractor",
            "side": _root(projector["num_query_tokens"]),
            "depth": projector["depth"],
        }
        options |= {
            "width": projector["hidden_size"],
            "mlp_depth": projector["mlp_depth"],
            "prenorm": _prenorm(projector),
        }
        return options | shared
    if kind == "d-abs":
        known_value("learnable_mRP", projector.get("learnable_mRP", True), True)
        return {
            "type": "d_abstractor",
            "side": _root(projector["num_queries"]),
            "depth": projector.get("decoder_layers", 6),
            "width": projector.get("d_model", 256),
            "heads": projector.get("decoder_attention_heads", 8),
            "hidden": projector.get("decoder_ffn_dim", 1024),
            "points": projector.get("decoder_n_points", 4),
            "levels": projector.get("num_feature_levels", 1),
            "pooled": POOLED[projector.get("pooled_v_target", "query")],
            "activation": projector.get("activation_function", "relu"),
            **shared,
        }
    if kind == "resampler":
        return {
            "type": "honeybee_resampler",
            "queries": projector["num_query_tokens"],
            "depth": projector["num_hidden_layers"],
            "width": projector["hidden_size"],
            "heads": projector["num_attention_heads"],
            "hidden": projector["intermediate_size"],
            "epsilon": projector.get("layer_norm_eps", 1e-6),
            **shared,
        }
    raise CheckpointError(f"projector_type is {kind!r}{nearest(kind, PROJECTORS)}")


def _prenorm(projector: Mapping[str, Any]) -> bool:
    return bool(projector.get("prenorm", False))


def _root(count: int) -> int:
    side = math.isqrt(count)
    if side**2 != count:
        raise CheckpointError(f"the projector's {count} query tokens are no square")
    return side


def _own_rules(kind: str, connector: Mapping[str, Any]) -> list[Rule]:
    if kind == "mlp":
        return [Rule("abstractor.net.{rest...}", "connector.layers.{rest...}")]
    if kind == "c-abs":
        stages = [(0, "before"), (2, "after")]
        return [
            Rule(
                f"abstractor.net.{stage}.b{n + 1}.{theirs}.{{p}}", f"connector.{ours_stage}.{n}.{ours}.{{p}}"
            )
            for stage, ours_stage in stages
            for n in range(connector["depth"])
            for theirs, ours in BOTTLENECK
        ] + [Rule("abstractor.readout.{rest...}", "connector.readout.{rest...}")]
    if kind == "d-abs":
        count, width, levels = connector["side"] ** 2, connector["width"], connector["levels"]
        return [
            *[
                Rule(f"abstractor.layers.{{n}}.{a}.{{p}}", f"connector.layers.{{n}}.{b}.{{p}}")
                for a, b in DECODER
            ],
            Rule("abstractor.input_proj.{rest...}", "connector.inputs.{rest...}"),
            Rule(
                "abstractor.level_emb",
                "connector.level_vectors",
                Reshape((1, levels, 1, width), (levels, width)),
            ),
            Rule("abstractor.query_position_embeddings.weight", "connector.queries"),
            Rule("abstractor.reference_points", "connector.references", Reshape((1, count, 2), (count, 2))),
            Rule("abstractor.output_proj.{p}", "connector.output.{p}"),
        ]
    count, width = connector["queries"], connector["width"]
    return [
        *abstractor_rules("abstractor.", "connector."),
        Rule("abstractor.query_tokens", "connector.queries", Reshape((1, count, width), (count, width))),
        Rule("abstractor.visual_input_fc.{p}", "connector.input.{p}"),
        Rule("abstractor.visual_output_fc.{p}", "connector.output.{p}"),
    ]


@replays("honeybee", "HoneybeeForConditionalGeneration")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The id -1 stands at each visual token; pictures are numbered through all rows."""
    inputs = case.inputs
    model = load(find_family("honeybee"), Original(case.config, case.tensors)).model
    pixels = unnormalised(model.encoder, inputs["pixel_values"])
    images = [CasePicture(f"{i}", Size(*each.shape[-2:]), each[None]) for i, each in enumerate(pixels)]
    mask, labels = inputs["attention_mask"].bool(), inputs["labels"]
    documents = [
        case_document(model, row[real], images, IMAGE, learnt=row_labels[real] != IGNORE, repeated=True)
        for row, real, row_labels in zip(inputs["input_ids"], mask, labels, strict=True)
    ]
    read = read_documents(model, documents)
    features = model.encode(pixels)
    levels = model.spec["connector"].get("levels", 1)
    shape = case.outputs["visual_features"].shape
    features = torch.stack(features.flatten(1, 2).chunk(levels, -1), 1) if levels > 1 else features
    return {
        "visual_features": features.reshape(shape),
        "visual_embeds": model.connector(model.encode(pixels)),
        "logits": scattered(read.logits, mask),
        "loss": model.losses(read.batch)["text"].mean,
    }
