"""DeepSeek-VL (arXiv 2403.05525) in the original's layout: 1.3B with SigLIP, 7B with SAM beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError, nearest
from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.convert import Loaded, load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered
from chiasm.interop.parity.verify import replays, replays_table
from chiasm.interop.shapes.sam import sam_rules
from chiasm.interop.shapes.timm_siglip import siglip, siglip_rules
from chiasm.interop.shapes.towers import (
    causal_config,
    channels,
    colour,
    deviations,
    normalisation,
    with_padding,
)
from chiasm.views import Size
from chiasm.views.letterbox import Letterbox

PADDING = "image_padding"  # not in the original's config: the colour of its preprocessor's mean
IMAGE = -1  # the id at each place of a picture in the original's input
SIDE = 96  # to which the original's SAM resizes its features, whatever the picture's size
# The structures that configs only name.
SAMS = {
    "sam_b_downsample": {
        "width": 768,
        "layers": 12,
        "heads": 12,
        "global_attn_indexes": [2, 5, 8, 11],
        "downsample_channels": [512, 1024],
    }
}
PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
TEMPLATE = (
    "{{ bos_token }}{% if not messages or messages[0]['role'] != 'system' %}" + PROMPT + "\n\n{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}User: {{ message['content'] }}\n\n"
    "{% elif message['role'] == 'assistant' %}Assistant: {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


class DeepseekVL(Family, name="deepseek-vl"):
    """The layout of deepseek-ai/deepseek-vl-1.3b and -7b on the hub.

    The config names the towers' structures; one that is not known stands in it under its name.
    """

    looks_for = "config.json with model_type multi_modality, vision_config.cls and aligner_config.cls"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "*.image_size": "the tower's params are used where a structure has one too",
        "*.freeze_high": "of training",
        "*.freeze_low": "of training",
        "*.ckpt_path": "where weights once were",
        "*.output_dim": "the tensors tell",
        "*.n_embed": "the tensors tell",
        "*.input_dim": "the tensors tell",
        "*.pixel_mean": "taken over by the encoder",
        "*.pixel_std": "taken over by the encoder",
        "vision_config.params.high_res_cfg.select_layer": "SAM has one output",
        "*.cls": "one class is known at each place, which its tensors and options show",
    }

    def recognises(self, folder: Folder) -> bool:
        config = folder.config
        return config.get("model_type") == "multi_modality" and (
            {"vision_config", "aligner_config", "language_config"} <= config.keys()
            and not any(key.startswith("gen_") for key in config)  # Janus
        )

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        hybrid, params = _is_hybrid(config), config["vision_config"]["params"]
        tower_params = params["high_res_cfg"] if hybrid else params
        mean = tower_params.get("pixel_mean") or (0.0, 0.0, 0.0)
        return {
            "views": {
                "type": "letterbox",
                "size": tower_params["image_size"],
                "padding": tuple(config.get(PADDING) or colour(mean)),
            },
            "encoder": _hybrid(params, config) if hybrid else siglip(params, config),
            "connector": _aligner(config),
            "language": causal_config(config["language_config"], "llama"),
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        encoder = self.model(config)["encoder"]
        if _is_hybrid(config):
            high, low = ("vision_model.vision_tower_" + side + ".vision_tower." for side in ("high", "low"))
            first = "encoder.encoders.0"
            vision = [
                Rule(high + "neck_hd.{rest...}", first + ".early_neck.{rest...}"),
                Rule(high + "downsamples.{rest...}", first + ".downsample.{rest...}"),
                Rule(high + "hd_alpha_downsamples", first + ".early_scale"),
                *sam_rules(high, first),
                *siglip_rules(encoder["encoders"][1], low, "encoder.encoders.1"),
                Unused("vision_model.high_layer_norm.{p}"),
                Unused("vision_model.low_layer_norm.{p}"),
                Rule("aligner.high_up_proj.{p}", "connector.shares.0.{p}"),
                Rule("aligner.low_up_proj.{p}", "connector.shares.1.{p}"),
                # The original's row of layers begins with a GELU, ours too.
                Rule("aligner.layers.{n}.{p}", "connector.layers.{n}.{p}"),
                Rule("aligner.layers.{p}", "connector.layer.{p}"),
            ]
        else:
            vision = [
                *siglip_rules(encoder, "vision_model.vision_tower."),
                Rule("aligner.layers.{n}.{p}", "connector.layers.{n}.{p}"),
                Rule("aligner.layers.{p}", "connector.layer.{p}"),
            ]
        return NameMap(
            *vision,
            Unused("language_model.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("language_model.{rest...}", "language.inner.{rest...}"),
        )

    def read(self, folder: Folder) -> Original:
        return with_padding(folder, PADDING)

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(PADDING), folder)

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        """What the preprocessor does and each tower does behind it, as one."""
        values, first = _normalisation(folder.config), normalisation(folder)
        if not first:
            return values
        mean, deviation = first["encoder.mean"], first["encoder.deviation"]
        return {
            name: value * deviation + (mean if name.endswith(".mean") else 0)
            for name, value in values.items()
        }

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE


def _is_hybrid(config: Mapping[str, Any]) -> bool:
    kind = config["vision_config"].get("cls")
    if kind not in ("CLIPVisionTower", "HybridVisionTower"):
        raise CheckpointError(f"vision_config.cls is {kind!r}; known: CLIPVisionTower, HybridVisionTower")
    return bool(kind == "HybridVisionTower")


def _hybrid(params: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    if params.get("concat_type", "tuple") not in ("tuple", "feature"):
        raise CheckpointError(f"concat_type is {params['concat_type']!r}; known: tuple, feature")
    high, low = params["high_res_cfg"], params["low_res_cfg"]
    known_value("select_feature", high.get("select_feature", "same"), "same")
    structures = {**SAMS, **config}
    name = high["model_name"]
    if not isinstance(structures.get(name), Mapping):
        raise CheckpointError(f"the vision tower is {name!r}{nearest(name, SAMS)}")
    structure = structures[name]
    sam = {
        "type": "sam",
        "size": high["image_size"],
        "patch_size": structure.get("patch_size", 16),
        "width": structure["width"],
        "depth": structure["layers"],
        "heads": structure["heads"],
        "hidden": 4 * structure["width"],
        "window": 14,
        "global_layers": list(structure["global_attn_indexes"]),
        "neck": structure.get("prompt_embed_dim", 256),
        "downsample": list(structure.get("downsample_channels", (512, 1024))),
        "resize": SIDE,
        "early": True,
    }
    return {
        "type": "hybrid",
        "encoders": [sam, siglip(low, config)],
        "sizes": [None, low["image_size"]],
    }


def _aligner(config: Mapping[str, Any]) -> dict[str, Any]:
    params = config["aligner_config"]["params"]
    kind, depth = params["projector_type"], params.get("depth", 1)
    if kind == "linear":
        return {"type": "linear"}
    if kind == "mlp_gelu":
        return {"type": "mlp", "depth": depth}
    if kind == "low_high_hybrid_split_mlp_gelu":
        return {"type": "split_mlp", "depth": depth}
    raise CheckpointError(
        f"projector_type is {kind!r}; known: linear, mlp_gelu, low_high_hybrid_split_mlp_gelu"
    )


def _normalisation(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Mean and deviation of each tower, which stand in the config here."""
    params = config["vision_config"]["params"]
    towers = {"encoder": params}
    if _is_hybrid(config):
        towers = {"encoder.encoders.0": params["high_res_cfg"], "encoder.encoders.1": params["low_res_cfg"]}
    constants = {}
    for slot, settings in towers.items():
        present = settings.get("pixel_mean") is not None and settings.get("pixel_std") is not None
        mean, deviation = (settings["pixel_mean"], settings["pixel_std"]) if present else (0.0, 1.0)
        constants[f"{slot}.mean"] = channels(mean, "pixel_mean")
        constants[f"{slot}.deviation"] = deviations(deviation, "pixel_std")
    return constants


def _load(case: Case) -> Loaded:
    original = Original(case.config, case.tensors)
    return load(find_family("deepseek-vl"), original, constants=_normalisation(case.config))


@replays("deepseek_vl", "MultiModalityCausalLM")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Pixels come in [0, 1]; pictures without a place (images_emb_mask False) are padding."""
    inputs, model = case.inputs, _load(case).model
    real, mask = inputs["images_emb_mask"].any(dim=-1), inputs["attention_mask"].bool()
    pixels = inputs["pixel_values"][real]
    images = [CasePicture(f"{i}", Size(*tile.shape[-2:]), tile[None]) for i, tile in enumerate(pixels)]
    documents = [
        case_document(model, row[real_places], images, IMAGE, repeated=True)
        for row, real_places in zip(inputs["input_ids"], mask, strict=True)
    ]
    read = read_documents(model, documents)
    features = model.encoder(inputs["pixel_values"][0, :1])
    outputs = {"image_embeds_first": model.connector(features), "logits": scattered(read.logits, mask)}
    if _is_hybrid(case.config):
        widths = [tower.width for tower in model.encoder.encoders]
        outputs["high_features"], outputs["low_features"] = features.flatten(1, 2).split(widths, dim=-1)
    return outputs


@replays_table("deepseek_vl")
def replay_resize(case: Case) -> list[dict[str, Any]]:
    """How large a picture becomes, and where it is laid."""
    parameters = case.parameters
    views = Letterbox(size=parameters["image_size"], shortest=parameters["min_size"])
    rows = []
    for row in case.record["rows"]:
        resized, left, top = views.lay(Size(row["height"], row["width"]))
        canvas = views.split(Size(row["height"], row["width"]))[0].size
        rows.append({
            "width": row["width"],
            "height": row["height"],
            "resized": resized[::-1],
            "paste": (left, top),
            "canvas": canvas[::-1],
        })  # fmt: skip
    return rows
