"""Chameleon in transformers' layout (arXiv 2405.09818): one model of words and codes, early fusion."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.families.chameleon_vq import of_transformers
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Rule, Unused
from chiasm.interop.shapes.lightning import read_state_dict
from chiasm.interop.shapes.towers import causal_config

CODE = "IMGIMG"  # begins the name of a code's token; its number follows in letters, A for 0, and a Z
BEGIN, END, ASK = "<racm3:break>", "<eoss>", "<reserved08706>"
DRAWER = "vqgan.ckpt"  # the original's image tokenizer, whose decoder transformers left out
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}" + ASK + "{% elif message['role'] == 'assistant' %}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)


class Chameleon(Family, name="chameleon"):
    """facebook/chameleon-7b and -30b: pictures are read as codes between markers, with the rows of their words.

    The layout has no decoder: where the original's `vqgan.ckpt` lies in the folder, its decoder is taken from
    there; else what is drawn is noise. The released models were made not to draw: their chances of codes are not
    those that they were trained to.
    """

    looks_for = "config.json with model_type chameleon"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "tie_word_embeddings": "the tensors tell",
        "vq_config.dropout": "in training only",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "chameleon"

    def read(self, folder: Folder) -> Original:
        tensors: dict[str, Tensor] = dict(folder.tensors)
        borrowed: list[str] = []
        if (folder.path / DRAWER).is_file():
            whole = read_state_dict(folder.path / DRAWER)
            drawer = {f"model.vqmodel.{k}": t for k, t in whole.items() if k.startswith("decoder.")}
            tensors |= drawer
            borrowed = list(drawer)
        return Original(folder.config, tensors, borrowed)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        apart = ("vq_config", "vocabulary_map", "text_config")
        own = {key: value for key, value in config.items() if key not in apart}
        language = causal_config({**own, "vocabulary_map": {}}, "chameleon")
        language["config"] = {k: v for k, v in language["config"].items() if k not in apart}
        table = _table(config)
        tokenizer = find_family("vqgan").model(of_transformers(config["vq_config"]))["image_tokenizer"]
        codes = tokenizer["quantizer"]["codebook_size"]
        if len(table) != codes:
            raise CheckpointError(
                f"the vocabulary has {len(table)} codes ({CODE}...), but the image tokenizer has {codes}"
            )
        alphabet = {"type": "shared", "table": table, "counted_as": "text"}
        return {
            "language": {**language, "draw_marker": BEGIN, "draw_end": END},
            "image_tokenizer": tokenizer,
            "heads": {"image": {"type": "raster", "alphabet": alphabet, "cells": False}},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        draws = any(key.startswith("model.vqmodel.decoder.") for key in keys)
        return NameMap(
            *([] if draws else [OwnTensors("image_tokenizer.decoder.{rest...}")]),
            Unused("model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("model.vqmodel.{rest...}", "image_tokenizer.{rest...}"),
            Rule("{rest...}", "language.inner.{rest...}"),
        )

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE


def _table(config: Mapping[str, Any]) -> list[int]:
    """The id of each code, by the names of the vocabulary."""
    digits = str.maketrans("ABCDEFGHIJ", "0123456789")
    codes = {
        int(name.removeprefix(CODE)[:-1].translate(digits)): id
        for name, id in (config.get("vocabulary_map") or {}).items()
        if name.startswith(CODE)
    }
    if not codes or sorted(codes) != list(range(len(codes))):
        raise CheckpointError(f"config.json's vocabulary_map does not name every code ({CODE}...)")
    return [codes[code] for code in range(len(codes))]
