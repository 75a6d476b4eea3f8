"""InternVL-1.5 and -2 (arXiv 2404.16821) in the original's layout."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.encoders.preprocessor import IMAGENET
from chiasm.errors import CheckpointError, nearest
from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays, replays_table
from chiasm.interop.shapes.conversations import conversation_template
from chiasm.interop.shapes.intern_vit import intern_vit, intern_vit_rules
from chiasm.interop.shapes.internlm2 import internlm2_config, internlm2_rules
from chiasm.interop.shapes.towers import causal_config, colour, normalisation
from chiasm.model import Model
from chiasm.sequence import IGNORE
from chiasm.views import Size
from chiasm.views.ratio_tiles import RatioTiles
from chiasm.views.whole import Whole

BEGIN, END = "<img>", "</img>"
TEMPLATE = "chat_template"  # not in the original's config: the conversation that its code calls by its name
INTERNLM2 = "InternLM2ForCausalLM"
# Language models by the class that the config names, and transformers' type of each.
LANGUAGES = {
    INTERNLM2: "internlm2",
    "LlamaForCausalLM": "llama",
    "Phi3ForCausalLM": "phi3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
}
OF_EXPERTS = "of experts, which use_moe leaves out"
TRAINING = "of training"


class InternVL(Family, name="internvl"):
    """The layout of OpenGVLab/InternVL-Chat-V1-5, InternVL2-8B and their kin (model_type internvl_chat).

    What is said in a conversation stands in code that comes with the checkpoint, conversation.py, under the name
    that the config has for it; it is read as data, and what is known of that name stands in where it is missing.
    """

    looks_for = "config.json with model_type internvl_chat, a vision_config and an llm_config"
    own_conversation = True

    without_effect: ClassVar = {
        **EVERYWHERE,
        "hidden_size": "the tensors tell",
        "template": "the name of a conversation, which the folder's reader follows",
        "system_message": "the conversation's is used",
        "image_fold": "of an older way to cut images",
        "neftune_alpha": TRAINING,
        "loss_reduction": TRAINING,
        "vision_config.drop_path_rate": TRAINING,
        "vision_config.dropout": TRAINING,
        "vision_config.attention_dropout": TRAINING,
        "vision_config.use_flash_attn": "speed only",
        "vision_config.attn_implementation": "speed only",
        **{
            f"vision_config.{key}": OF_EXPERTS
            for key in (
                *("capacity_factor", "eval_capacity_factor", "laux_allreduce", "moe_coeff_ratio"),
                *("moe_intermediate_size", "moe_output_scale", "noisy_gate_policy", "num_experts"),
                *("num_routed_experts", "num_shared_experts", "shared_expert_intermediate_size"),
                *("use_residual", "use_rts", "use_weighted_residual", "ep_size"),
            )
        },
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "internvl_chat"

    def read(self, folder: Folder) -> Original:
        settings = folder.json("tokenizer_config.json")
        begins = settings.get("add_bos_token", "InternLM2" in str(settings.get("tokenizer_class")))
        name = folder.config.get("template")
        template = conversation_template(name, folder.path, begins=bool(begins))
        return Original({**folder.config, TEMPLATE: template}, dict(folder.tensors))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        for key in ("use_backbone_lora", "use_llm_lora"):
            known_value(key, config.get(key, 0), 0, None)
        vision, version = config["vision_config"], config.get("ps_version", "v1")
        return {
            "views": _views(config, config.get("force_image_size") or vision.get("image_size", 224)),
            "encoder": intern_vit(vision, config.get("select_layer", -1)),
            "connector": {
                "type": "pixel_shuffle",
                "factor": shuffle_factor(config.get("downsample_ratio", 0.5)),
                "transposed": known_value("ps_version", version, "v1", "v2") == "v1",
            },
            "language": {
                **_language(config["llm_config"], tuple(keys)),
                **{"read_marker": BEGIN, "read_end": END},
            },
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec, prefix = self.model(config, keys), "language_model."
        internlm2 = _class(config["llm_config"]) == INTERNLM2
        return NameMap(
            *intern_vit_rules(spec["encoder"], "vision_model."),
            Rule("mlp1.0.{p}", "connector.norm.{p}"),
            Rule("mlp1.1.{p}", "connector.layers.0.{p}"),
            Rule("mlp1.3.{p}", "connector.layers.2.{p}"),
            *(internlm2_rules(spec["language"], prefix) if internlm2 else ()),
            Unused(f"{prefix}model.layers.{{n}}.self_attn.rotary_emb.inv_freq"),
            *(() if internlm2 else (Rule(f"{prefix}{{rest...}}", "language.inner.{rest...}"),)),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder)

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return config.get(TEMPLATE)

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(TEMPLATE), folder)


def shuffle_factor(ratio: float) -> int:
    """Side of the blocks that become one token; raises CheckpointError for a ratio that makes none."""
    factor = round(1 / ratio) if ratio else 0
    if factor < 1 or abs(factor * ratio - 1) > 1e-6:
        raise CheckpointError(f"downsample_ratio is {ratio!r}, but has to be 1, 1/2, 1/3 ...")
    return factor


def _views(config: Mapping[str, Any], size: int) -> dict[str, Any]:
    options = {
        "tiles": config.get("max_dynamic_patch", 6),
        "fewest": config.get("min_dynamic_patch", 1),
        "thumbnail": config.get("use_thumbnail", False),
    }
    square = config.get("pad2square", False)
    if config.get("dynamic_image_size", False):
        if square:
            raise CheckpointError("pad2square is true, but with dynamic_image_size images are cut into tiles")
        return {"type": "ratio_tiles", "size": size, **options}
    fit: dict[str, Any] = (
        {"fit": "pad", "padding": tuple(colour(IMAGENET[0]))} if square else {"fit": "stretch"}
    )
    return {"type": "whole", "size": size, **fit}


def _class(config: Mapping[str, Any]) -> str:
    name = str(next(iter(config.get("architectures") or ()), None))
    if name not in LANGUAGES:
        raise CheckpointError(f"llm_config.architectures names {name!r}{nearest(name, LANGUAGES)}")
    return name


def _language(config: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    name = _class(config)
    if name == INTERNLM2:
        return internlm2_config(config, keys)
    return causal_config({**config, "model_type": LANGUAGES[name]}, LANGUAGES[name])


def as_tiles(model: Model) -> None:
    """Have a model read each tile of a case as an image of its own."""
    assert isinstance(model.views, RatioTiles | Whole)
    model.views = Whole(size=model.views.size, fit="stretch")


@replays("internvl", "InternVLChatModel")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The last id of the vocabulary stands at each visual token; images whose flag is 0 stand nowhere."""
    inputs = case.inputs
    model = load(find_family("internvl"), Original(case.config, case.tensors)).model
    as_tiles(model)
    pixels = unnormalised(model.encoder, inputs["pixel_values"])
    flags = inputs.get("image_flags", torch.ones(len(pixels))).flatten().bool()
    tiles = [
        CasePicture(f"{i}", Size(*tile.shape[-2:]), tile[None])
        for i, (tile, real) in enumerate(zip(pixels, flags, strict=True))
        if real
    ]
    mask, image = inputs["attention_mask"].bool(), case.config["llm_config"]["vocab_size"] - 1
    labels = inputs.get("labels", torch.full_like(inputs["input_ids"], IGNORE))
    documents = [
        case_document(model, row[real], tiles, image, learnt=targets[real] != IGNORE, repeated=True)
        for row, real, targets in zip(inputs["input_ids"], mask, labels, strict=True)
    ]
    read = read_documents(model, documents)
    outputs = {
        "image_features": model.connector(model.encoder(pixels)),
        "logits": scattered(read.logits, mask),
    }
    return outputs | ({"loss": model.losses(read.batch)["text"].mean} if "labels" in inputs else {})


@replays_table("internvl")
def replay_tiles(case: Case) -> list[dict[str, Any]]:
    """Into how many tiles an image is cut, where, and how many tokens that makes."""
    parameters = case.parameters
    side = parameters["image_size"]
    views = RatioTiles(
        size=side,
        tiles=parameters["max_num"],
        fewest=parameters["min_num"],
        thumbnail=parameters["use_thumbnail"],
    )
    tokens = (side // 14 // 2) ** 2  # patches of 14 pixels, two by two
    rows = []
    for row in case.record["rows"]:
        size = Size(row["height"], row["width"])
        grid, split = views.grid(size), views.split(size)
        tiles = split[: grid[0] * grid[1]]
        rows.append({
            "width": size.width,
            "height": size.height,
            "grid_wh": grid[::-1],
            "resized": (grid[1] * side, grid[0] * side),
            "boxes": [
                (view.column * side, view.row * side, (view.column + 1) * side, (view.row + 1) * side)
                for view in tiles
            ],
            "views": len(split),
            "thumbnail": len(split) > len(tiles),
            "tokens": tokens * len(split),
        })  # fmt: skip
    return rows
