"""Fuyu-8B (www.adept.ai/blog/fuyu-8b) in transformers' layout."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, TableRow, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered
from chiasm.interop.parity.verify import replays, replays_table
from chiasm.interop.shapes.towers import causal_config
from chiasm.language.turns import IMAGES_AHEAD
from chiasm.sequence import Document
from chiasm.views import Size
from chiasm.views.native import Native

NEWLINE = "newline_token_id"  # not in the original's config: the id of |NEWLINE| in its tokenizer
NEWLINE_ID = 71019  # of fuyu-8b
# Fields of the language model that stand flat in the config of fuyu-8b.
FLAT = (
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "initializer_range",
    "layer_norm_eps",
    "qk_layernorm",
    "rope_theta",
    "rope_scaling",
    "partial_rotary_factor",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
)
# As its processor: images, the begin token, the words, and byte 4 where an answer begins.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    + IMAGES_AHEAD
    + "{{ '<s>' if loop.first }}{{ message['content'] }}{{ '\\x04' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }}{{ '\\n' }}{% endif %}{% endfor %}"
)


class Fuyu(Family, name="fuyu"):
    """The layout of FuyuForCausalLM: of the hub (`language_model.model.`) and of transformers 5's modules."""

    looks_for = "config.json with model_type fuyu"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "_vocab_size": "the text_config's is used",
        "hidden_dropout": "of training",
        "attention_dropout": "of training",
        "image_token_id": "an id in a prompt, where images are put without it",
        "image_size": "images keep their own size",
        "pad_token_id": "of padding",
        "bos_token_id": "of the tokenizer",
        "eos_token_id": "of the tokenizer",
        "tie_word_embeddings": "the tensors tell",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "fuyu"

    def read(self, folder: Folder) -> Original:
        tokenizer = folder.json("tokenizer.json")
        vocabulary = tokenizer.get("model", {}).get("vocab", {})
        listed = (
            dict(vocabulary)
            if isinstance(vocabulary, dict)
            else {word: i for i, (word, _) in enumerate(vocabulary)}
        )
        listed |= {each["content"]: each["id"] for each in tokenizer.get("added_tokens", [])}
        newline = folder.config.get(NEWLINE, listed.get("|NEWLINE|", _newline(folder.config)))
        return Original({**folder.config, NEWLINE: newline}, dict(folder.tensors))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        text, patch = _text(config), config.get("patch_size", 30)
        known_value("num_channels", config.get("num_channels", 3), 3)
        return {
            "views": {"type": "native", "patch": patch},
            "encoder": {"type": "patches", "patch_size": patch},
            "connector": {"type": "linear"},
            "language": causal_config(text, text.get("model_type", "persimmon")),
        }

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        flat = any(key.startswith("model.language_model.") for key in keys)
        patches = "model.vision_embed_tokens" if flat else "vision_embed_tokens"
        trunk = "model.language_model." if flat else "language_model.model."
        head = "lm_head.weight" if flat else "language_model.lm_head.weight"
        newline = TableRow(config.get(NEWLINE, _newline(config)))
        table = ("language.inner.model.embed_tokens.weight", "views.markers")
        return NameMap(
            Rule(f"{patches}.{{p}}", "connector.layer.{p}"),
            Unused(f"{trunk}layers.{{n}}.self_attn.rotary_emb.inv_freq"),
            Rule(f"{trunk}embed_tokens.weight", table, newline),
            Rule(head, "language.inner.lm_head.weight"),
            Rule(f"{trunk}{{rest...}}", "language.inner.model.{rest...}"),
        )

    def write(self, original: Original, folder: Path) -> None:
        config = {key: value for key, value in original.config.items() if key != NEWLINE}
        super().write(Original(config, original.tensors), folder)


def _newline(config: Mapping[str, Any]) -> int:
    """Where no tokenizer tells."""
    return min(NEWLINE_ID, _text(config)["vocab_size"] - 1)


def _text(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: config[key] for key in FLAT if key in config}
    flat = {"vocab_size": 262144, "rope_theta": 25000.0, "partial_rotary_factor": 0.5, **flat}
    return dict(config.get("text_config") or flat)


@replays("fuyu", "FuyuForCausalLM")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Each row shows one picture as patches; an id of its own closes each row of patches."""
    inputs = case.inputs
    grids = [_grid(indices) for indices in inputs["image_patches_indices"]]
    closes = [
        int(ids[int((indices >= 0).nonzero()[0]) + grid[1]])
        for ids, indices, grid in zip(
            inputs["input_ids"], inputs["image_patches_indices"], grids, strict=True
        )
        if grid[0]
    ]
    config = {**case.config, **({NEWLINE: closes[0]} if closes else {})}
    model = load(find_family("fuyu"), Original(config, case.tensors)).model
    side, image = model.encoder.patch_size, int(case.config.get("image_token_id", 71011))
    documents: list[Document] = []
    mask = inputs["attention_mask"].bool()
    for row, (ids, real, (rows, columns)) in enumerate(zip(inputs["input_ids"], mask, grids, strict=True)):
        images = []
        if rows:
            patches = inputs[f"image_patches{row}"]
            pixels = rearrange(
                patches * 0.5 + 0.5, "1 (r s) (p q c) -> 1 c (r p) (s q)", r=rows, p=side, q=side
            )
            size = Size(rows * side, columns * side)
            images = [CasePicture(f"{row}", size, pixels)]
        documents.append(case_document(model, ids[real], images, image, repeated=True))
    read = read_documents(model, documents)
    embeddings = scattered(read.embeddings, mask)
    padding = model.language.embed(inputs["input_ids"])
    return {
        "inputs_embeds": torch.where(mask[..., None], embeddings, padding),
        "logits": scattered(read.logits, mask),
    }


def _grid(indices: Tensor) -> tuple[int, int]:
    """Rows and columns of patches: one position without a patch closes each row."""
    places = (indices >= 0).nonzero()[:, 0]
    if not len(places):
        return 0, 0
    breaks = int((places.diff() > 1).sum())
    return breaks + 1, len(places) // (breaks + 1)


@replays_table("fuyu")
def replay_resize(case: Case) -> list[dict[str, Any]]:
    """How large a picture is shown, and how many patches and row ends that makes."""
    parameters = case.parameters
    patch = parameters["patch"]
    views = Native(1, height=parameters["size"]["height"], width=parameters["size"]["width"], patch=patch)
    rows = []
    for row in case.record["rows"]:
        size = Size(row["height"], row["width"])
        resized, (view,) = views.shrink(size), views.split(size)
        grid = (view.size.height // patch, view.size.width // patch)
        order = views.arrange(size, [grid])
        ends = sum(index < 0 for index in order)
        rows.append({
            "width": size.width,
            "height": size.height,
            "resized": resized[::-1],
            "patch_rows": grid[0],
            "patch_cols": grid[1],
            "image_tokens": len(order) - ends,
            "newline_tokens": ends,
        })  # fmt: skip
    return rows
