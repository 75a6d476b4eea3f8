"""UReader (arXiv 2310.05126): crops of the nearest grid, and mPLUG-Owl's abstractor, which knows their places."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE, reader
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Reshape, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.low_rank import has_updates, with_updates
from chiasm.interop.shapes.mplug_owl import (
    WITHOUT_EFFECT,
    abstractor,
    abstractor_rules,
    closing_rule,
    vision_rules,
    vision_tower,
)
from chiasm.interop.shapes.towers import causal_config
from chiasm.language.special import READ
from chiasm.views import Size, View, Views

CELLS = "cut_num"
ROWS, COLUMNS = "abstractor.cut_patch_embedding_h.weight", "abstractor.cut_patch_embedding_w.weight"
SIDE = 224  # pixels of a crop
ALPHA = 32  # of low-rank updates, which the training script leaves beside the weights
IMAGE = -1  # the id at each visual token of a case
# Each image stands in a line of its own.
CONTENT = f"message['content'] | replace('{READ}\\n', '{READ}') | replace('{READ}', '{READ}\\nHuman: ')"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'Human: ' + (" + CONTENT + ") + '\\n' }}"
    "{% elif message['role'] == 'assistant' %}AI: {{ message['content'] }}{{ eos_token }}{{ '\\n' }}"
    "{% else %}{{ message['content'] }}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}AI:{% endif %}"
)
# The config class of mPLUG-Owl copies what its language model's has beside its own keys.
COPIED = (
    "attention_bias", "hidden_act", "hidden_size", "intermediate_size", "keys_to_ignore_at_inference",
    "max_position_embeddings", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "pretraining_tp",
    "rms_norm_eps", "rope_scaling", "rope_theta", "tie_word_embeddings", "vocab_size",
)  # fmt: skip


class UReader(Family, name="ureader"):
    """The layout of Mizukiluke/ureader-v1 (model_type mplug-owl).

    Low-rank updates, as its training script saves them, are added to the weights, so that an export is as what is
    published. In its config here stand also `cut_num`, how many rows its tables of positions have, and the settings
    of its code (`args`), where a recorded case has them.
    """

    looks_for = "config.json with model_type mplug-owl, and vision_config and visual_abstractor_config"
    own_conversation = True

    without_effect: ClassVar = {
        **EVERYWHERE,
        **WITHOUT_EFFECT,
        **dict.fromkeys(COPIED, "text_config's own counts"),
        "args.adapter_layer_indices": "of an adapter that is not there",
        "is_composition": "bookkeeping of transformers",
        "is_encoder_decoder": "the language model's config tells",
        "use_decoder_only_language_model": "the language model's config tells",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "mplug-owl" and "visual_abstractor_config" in folder.config

    def read(self, folder: Folder) -> Original:
        tensors = dict(folder.tensors)
        if has_updates(tensors):
            tensors = with_updates(tensors, ALPHA, folder.path)
            folder.remark = "its low-rank updates are added to the weights"
        if ROWS not in tensors:
            raise CheckpointError(
                f"{folder.path} lacks {ROWS}, the positions of crops: of mPLUG-Owl's layout UReader alone is known"
            )
        return Original({**folder.config, CELLS: len(tensors[ROWS])}, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        vision, inner, text = (config[f"{name}_config"] for name in ("vision", "visual_abstractor", "text"))
        settings = reader(config.get("args", {}))
        settings.only("patch_pos_embed_type", "post")
        settings.only("enable_vit_adapter", False)
        settings.only("enable_vit_cut_embedding", False)
        encoder = vision_tower(vision, SIDE, class_token="first")
        width = encoder["config"]["hidden_size"]
        return {
            "views": {"type": "anchors", "size": vision.get("image_size", SIDE)},
            "encoder": encoder,
            "connector": {
                **abstractor(inner, width, hidden=4096),
                "queries": config.get("num_query_tokens", 64),
                "cells": config[CELLS],
            },
            "language": causal_config(text, text.get("model_type", "llama")),
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config, keys)
        vision = config["vision_config"]
        queries, width = spec["connector"]["queries"], spec["encoder"]["config"]["hidden_size"]
        return NameMap(
            *vision_rules(vision, SIDE, "vision_model."),
            Rule("query_tokens", "connector.queries", Reshape((1, queries, width), (queries, width))),
            Rule(ROWS, "connector.rows"),
            Rule(COLUMNS, "connector.columns"),
            *abstractor_rules("abstractor.", "connector."),
            Rule("abstractor.visual_fc.{p}", "connector.output.{p}"),
            closing_rule("abstractor.vit_eos", spec["language"]["config"].get("hidden_size", 4096)),
            Unused("language_model.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("language_model.{rest...}", "language.inner.{rest...}"),
        )

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(CELLS), folder)


@replays("ureader", "MplugOwlForConditionalGeneration")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Each crop is an image of its own, at the place in its image that the case names."""
    inputs = case.inputs
    model = load(find_family("ureader"), Original(case.config, case.tensors)).model
    pixels = unnormalised(model.encoder, inputs["pixel_values"])
    size = Size(*pixels.shape[-2:])
    places = inputs["patch_positions"].tolist()
    model.views = Placed(size, places)
    images = [CasePicture(f"{i}", Size(1, 1 + i), each[None]) for i, each in enumerate(pixels)]
    real = inputs["attention_mask"].bool()
    rows = zip(inputs["input_ids"], real, strict=True)
    documents = [case_document(model, ids[mask], images, IMAGE, repeated=True) for ids, mask in rows]
    read = read_documents(model, documents)
    features = model.encode(pixels)
    return {
        "vision": features.flatten(1, 2),
        "abstractor": model.connector(features, inputs["patch_positions"]),
        "logits": scattered(read.logits, real),
    }


class Placed(Views):
    """Image i of a case, whose width says its number, is one crop at a place that the case names."""

    def __init__(self, size: Size, places: list[list[int]]):
        self.size, self.places = size, places

    def split(self, size: Size) -> list[View]:
        row, column = self.places[size.width - 1]
        return [View((0, 0, size.width, size.height), self.size, row, column)]
