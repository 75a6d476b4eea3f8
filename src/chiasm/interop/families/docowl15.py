"""mPLUG-DocOwl-1.5 (arXiv 2403.12895): named crops, the H-Reducer, and mPLUG-Owl2's modality-adaptive module."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from chiasm import parts
from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import (
    CasePicture,
    case_document,
    load_case,
    read_documents,
    scattered,
    unnormalised,
)
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.mplug_owl import (
    TEMPLATE_OF_NAMED,
    TRAINING,
    WITHOUT_EFFECT,
    closing_rule,
    multiway_config,
    multiway_rules,
    vision_rules,
    vision_tower,
)
from chiasm.sequence import IGNORE, PADDING, Kind
from chiasm.views import Size
from chiasm.views.anchors import NINE

SIDE = 448  # pixels of a crop
IMAGE = -200  # the id that stands for a crop in a row


class DocOwl15(Family, name="docowl-1.5"):
    """The layout of mPLUG/DocOwl1.5-stage1, -Chat and -Omni (model_type mplug_docowl)."""

    looks_for = "config.json with model_type mplug_docowl, and visual_config.visual_hreducer"
    own_conversation = True

    without_effect: ClassVar = {
        **EVERYWHERE,
        **WITHOUT_EFFECT,
        **TRAINING,
        "visual_config.visual_hreducer.layer_norm_eps": "of a norm that nothing passes through",
        "visual_config.visual_hreducer.hidden_size": "the features' width, which the tensors have too",
    }

    def recognises(self, folder: Folder) -> bool:
        visual = folder.config.get("visual_config") or {}
        return folder.config.get("model_type") == "mplug_docowl" and "visual_hreducer" in visual

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        vision = config["visual_config"]["visual_model"]
        return {
            "views": {
                "type": "anchors",
                "size": vision.get("image_size", SIDE),
                "grids": NINE,
                "named": True,
            },
            "encoder": vision_tower(vision, SIDE, class_token="drop"),
            "connector": _connector(config["visual_config"]["visual_hreducer"]),
            "language": multiway_config(config),
            "routing": {"type": "modality_adaptive", "kinds": [["read"]]},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        vision, language = config["visual_config"]["visual_model"], multiway_config(config)
        return NameMap(
            *vision_rules(vision, SIDE, "model.vision_model."),
            *_reducer_rules("model.vision2text.", language["config"].get("hidden_size", 4096)),
            *multiway_rules(),
        )

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE_OF_NAMED


def _connector(config: Mapping[str, Any]) -> dict[str, Any]:
    shape = config.get("conv_shape", "1x4")
    sides = shape.split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise CheckpointError(f"conv_shape is {shape!r}, but has to be rows x columns, as in '1x4'")
    return {"type": "h_reducer", "kernel": tuple(map(int, sides))}


def _reducer_rules(theirs: str, width: int) -> list[Rule | Unused]:
    """Rules for an H-Reducer whose tensors' names begin with `theirs`; width: of the language model."""
    return [
        Unused(f"{theirs}ln_q.{{p}}"),
        Rule(f"{theirs}reducer_before.0.{{p}}", "connector.mix.{p}"),
        Rule(f"{theirs}reducer.{{p}}", "connector.reduce.{p}"),
        Rule(f"{theirs}visual_fc.{{p}}", "connector.output.{p}"),
        closing_rule(f"{theirs}vit_eos", width),
    ]


@replays("docowl15", "MplugDocOwlHReducerModel", without_effect=WITHOUT_EFFECT)
@torch.no_grad()
def replay_reducer(case: Case) -> dict[str, Tensor]:
    """Features of crops, of which the first is the class token's."""
    config, features = case.config, case.inputs["x"][:, 1:]
    side = math.isqrt(features.shape[1])
    width = config["language_hidden_size"]
    connector = parts.build("connector", _connector(config), config["hidden_size"], width)
    names = NameMap(*_reducer_rules("", width))
    load_case(connector.eval(), case, names, "connector.")
    return {"y": connector(rearrange(features, "n (r s) c -> n r s c", r=side))}


@replays("docowl15", "MPLUGDocOwlLlamaForCausalLM")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Each crop is an image of its own among words; rows are padded behind."""
    inputs = case.inputs
    model = load(find_family("docowl-1.5"), Original(case.config, case.tensors)).model
    pixels = unnormalised(model.encoder, inputs["images"])
    size = Size(*pixels.shape[-2:])
    model.views = parts.build("views", {"type": "whole", "size": size.height})
    images = [CasePicture(f"{i}", size, each[None]) for i, each in enumerate(pixels)]
    documents, of_words = [], []
    rows = zip(inputs["input_ids"], inputs["attention_mask"].bool(), inputs["labels"], strict=True)
    for row, mask, labels in rows:
        ids, learnt = row[mask], labels[mask] != IGNORE
        documents.append(case_document(model, ids, images, IMAGE, learnt=learnt, repeated=False))
        of_words.append(labels[mask][ids != IMAGE])
    read = read_documents(model, documents)
    real, kinds = read.batch.documents != PADDING, read.batch.kinds
    targets = torch.full_like(kinds, IGNORE)
    targets[real & (kinds == Kind.TEXT)] = torch.cat(of_words)
    return {
        "image_features": model.connector(model.encode(pixels)),
        "modality_indicators": (kinds == Kind.READ).long(),
        "attention_mask": real.long(),
        "labels": targets,
        "logits": scattered(read.logits, real),
        "loss": model.losses(read.batch)["text"].mean,
    }
