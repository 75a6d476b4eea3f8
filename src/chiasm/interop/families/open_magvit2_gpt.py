"""Open-MAGVIT2's transformer, which draws a class in codes of two sub-tokens (arXiv 2409.04410)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.heads import GREEDY
from chiasm.inference.drawing import draw
from chiasm.interop.config import reader
from chiasm.interop.convert import load
from chiasm.interop.families.open_magvit2 import OpenMagvit2Tokenizer
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import behind, forced, llama_rules, prompt, stand_in
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.lightning import read_state_dict
from chiasm.language.llama_block import hidden_width
from chiasm.storage.weights import find_file
from chiasm.tokenizers.lookup_free import join_code, split_code

CLASS = "cond_transformer.Net2NetTransformer"
GPT, VQ = "transformer.", "first_stage_model."
HEAD_WIDTH = 64  # of every published model
SIZE = 256  # height and width of pictures, where no name tells it


class OpenMagvit2Transformer(Family, name="open-magvit2"):
    """A Lightning checkpoint of the transformer with its tokenizer inside.

    The config is what the YAML of its training gives the transformer, if one lies beside it, and what the tensors
    tell, with the tokenizer's as `vq`.
    """

    looks_for = f"one AR_*.ckpt, or a .yaml with model.class_path ...{CLASS} and one .ckpt"
    without_effect: ClassVar = {
        "file": "the checkpoint's name",
        "cond_dim": "the original does not read it",
        "embd_pdrop": "the original does not read it",
        "n_unmasked": "the original does not read it",
        "initalizer_range": "the weights are loaded",
        "max_batch_size": "room for keys and values",
        "max_seq_len": "room for keys and values",
        **dict.fromkeys(("attn_dropout_p", "ffn_dropout_p", "drop_path_rate"), "in training only"),
        **{f"vq.{key}": reason for key, reason in OpenMagvit2Tokenizer.without_effect.items()},
    }

    def recognises(self, folder: Folder) -> bool:
        return len(list(folder.path.glob("AR_*.ckpt"))) == 1 or _transformer_yaml(folder) is not None

    def read(self, folder: Folder) -> Original:
        file = next(folder.path.glob("AR_*.ckpt"), None) or find_file(folder.path, ".ckpt")
        tensors = read_state_dict(file)
        config = {**structure(tensors, str(file)), **(_transformer_yaml(folder) or {}), "file": file.name}
        size = re.match(r"AR_(\d{3})_", file.name)
        vq = tokenizer_structure(tensors, str(file))
        scale = 2 ** (len(vq["ddconfig"]["ch_mult"]) - 1)
        config.setdefault("block_size", ((int(size.group(1)) if size else SIZE) // scale) ** 2)
        side = math.isqrt(config["block_size"]) * scale
        return Original({**config, "vq": {**vq, "res": side}}, tensors)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        width, heads, bits = config["dim"], config["n_head"], list(config["factorized_bits"])
        config.only("n_kv_head", None, heads)
        config.only("token_factorization", True)
        config.only("factorized_k", len(bits))
        config.only("cls_token_num", 1)
        config.only("vocab_size", 2 ** sum(bits))
        sizes = config.get("multiple_of", 256), config.get("ffn_dim_multiplier")
        hidden = config.get("hidden_dim") or hidden_width(width, *sizes)
        shared = {
            "heads": heads,
            "hidden": hidden,
            "rope_base": config.get("rope_base", 10000),
            "epsilon": config.get("norm_eps", 1e-5),
            "dropout": config.get("resid_dropout_p", 0.0),
        }
        grid = math.isqrt(config["block_size"])
        alphabet = {"type": "factorised", "bits": bits, "depth": config["factorized_n_layer"], **shared}
        return {
            "language": {
                "type": "llamagen",
                "width": width,
                "depth": config["spatial_n_layer"],
                "context": max(2048, config["block_size"] + 1),
                "final_norm": False,
                "token_dropout": config.get("token_drop", 0.1),
                "classes": config.get("class_num", 1000),
                **shared,
            },
            "image_tokenizer": (
                find_family("open-magvit2-vq").model(config["vq"])["image_tokenizer"]
                if "vq" in config
                else stand_in(grid, 2 ** sum(bits))
            ),
            "heads": {"image": {"type": "raster", "alphabet": alphabet, "cells": False}},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        sizes = {"width": config["dim"], "heads": config["n_head"]}
        return NameMap(
            Rule(GPT + "class_emb.embedding_table.weight", "language.table.weight"),
            Rule(GPT + "pre_emb.weight", "heads.image.alphabet.tables.0.weight"),
            Rule(GPT + "post_emb.weight", "heads.image.alphabet.tables.1.weight"),
            *llama_rules(GPT + "spatial_blocks.", "language.layers.", **sizes),
            *llama_rules(GPT + "factorized_blocks.", "heads.image.alphabet.layers.", **sizes),
            Rule(GPT + "norm.weight", "heads.image.alphabet.norm.weight"),
            Rule(GPT + "head.{n}.weight", "heads.image.alphabet.outputs.{n}.weight"),
            *self._tokenizer_names(config, keys),
        )

    def _tokenizer_names(self, config: Mapping[str, Any], keys: Collection[str]) -> list[Any]:
        if "vq" not in config:
            return [OwnTensors("image_tokenizer.{rest...}")]
        own = [key.removeprefix(VQ) for key in keys if key.startswith(VQ)]
        return behind(find_family("open-magvit2-vq").names(config["vq"], own), VQ)

    def write(self, original: Original, folder: Path) -> None:
        torch.save({"state_dict": original.tensors}, folder / original.config["file"])


def structure(tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The transformer's arguments, as far as tensors tell them."""
    try:
        width = tensors[GPT + "norm.weight"].numel()
        bits = [len(tensors[f"{GPT}{name}_emb.weight"]).bit_length() - 1 for name in ("pre", "post")]
        classes = len(tensors[GPT + "class_emb.embedding_table.weight"]) - 1
        hidden = len(tensors[GPT + "spatial_blocks.0.feed_forward.w1.weight"])
    except KeyError as error:
        raise CheckpointError(f"{where} is not Open-MAGVIT2's transformer: it lacks {error}") from None
    depth = {name: _count(tensors, f"{GPT}{name}_blocks.") for name in ("spatial", "factorized")}
    return {
        "dim": width,
        "n_head": width // HEAD_WIDTH,
        "spatial_n_layer": depth["spatial"],
        "factorized_n_layer": depth["factorized"],
        "factorized_bits": bits,
        "class_num": classes,
        "hidden_dim": hidden,
    }


def tokenizer_structure(tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The arguments of the tokenizer inside, as far as tensors tell them."""
    encoder = VQ + "encoder."
    try:
        width, bits = (len(tensors[encoder + f"conv_{end}.weight"]) for end in ("in", "out"))
        levels = _count(tensors, encoder + "down.")
        first = [len(tensors[f"{encoder}down.{level}.block.0.conv1.weight"]) for level in range(levels)]
    except KeyError as error:
        raise CheckpointError(f"{where} lacks its tokenizer: {error}") from None
    structure = {
        "z_channels": bits,
        "ch": width,
        "ch_mult": [each // width for each in first],
        "num_res_blocks": _count(tensors, encoder + "down.0.block."),
        "resolution": SIZE,
    }
    return {"embed_dim": bits, "n_embed": 2**bits, "ddconfig": structure}


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in tensors if key.startswith(prefix)})


def _transformer_yaml(folder: Folder) -> dict[str, Any] | None:
    """What a YAML of the training gives the transformer."""
    for content in folder.yamls.values():
        section = content.get("model") if isinstance(content, dict) else None
        if isinstance(section, dict) and str(section.get("class_path", "")).endswith(CLASS):
            transformer = section.get("init_args", {}).get("transformer_config", {})
            return dict(transformer.get("params") or transformer.get("init_args") or {})
    return None


@replays("open_magvit2", "GPT")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Teacher-forced sub-tokens behind a class, and greedy pictures with a guidance of each sub-token."""
    full, inputs = case.config, case.inputs
    tensors = {GPT + key: tensor for key, tensor in case.tensors.items()}
    config = {key: value for key, value in full.items() if key != "cfg_scale"}
    model = load(find_family("open-magvit2"), Original(config, tensors)).model
    head = model.image_head
    alphabet = head.alphabet
    codes = join_code([inputs["idx_pre"], inputs["idx_post"]], alphabet.bits)
    prompts = [prompt([int(each)]) for each in inputs["cls"][:, 0]]
    hidden = forced(model, prompts, head.prepare(codes.unflatten(1, head.space.grid)))
    logits = alphabet.logits(hidden, split_code(codes, alphabet.bits))
    scales = full["cfg_scale"]
    alphabet.guidance_offsets = [scale - scales[0] for scale in scales]
    drawn = draw(model, prompts, replace(GREEDY, guidance=scales[0])).flatten(1)
    pre, post = split_code(drawn, alphabet.bits)
    losses = alphabet.part_losses(hidden.flatten(0, 1), codes.flatten())
    return {
        "logits_pre": logits[0],
        "logits_post": logits[1],
        "loss_pre": losses[0] / codes.numel(),
        "loss_post": losses[1] / codes.numel(),
        "greedy_pre": pre,
        "greedy_post": post,
    }
