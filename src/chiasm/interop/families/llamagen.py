"""LlamaGen: a transformer that draws a class or a caption, and its tokenizer (arXiv 2406.06525)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from chiasm.errors import CheckpointError
from chiasm.heads import GREEDY
from chiasm.inference.drawing import draw
from chiasm.interop.config import reader
from chiasm.interop.convert import load
from chiasm.interop.families.llamagen_vq import LlamaGenTokenizer
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import behind, forced, llama_rules, prompt, stand_in
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.lightning import read_wrapped
from chiasm.language.llama_block import hidden_width
from chiasm.model import Model
from chiasm.sequence import Document
from chiasm.storage.weights import find_named, read_tensors

HEAD_WIDTH = {3200: 100, 4096: 128}  # of the published widths; 64 elsewhere
GPT, VQ, T5 = "gpt.", "vq.", "t5."
TRANSFORMERS = ("c2i_*.pt", "t2i_*.pt")
SIZE = 256  # height and width of pictures, where no name tells it


class LlamaGenFamily(Family, name="llamagen"):
    """c2i_*.pt (or t2i_*.pt with a T5) beside vq_ds*.pt, without a config: the structure is read from the tensors.

    The original's arguments are the config, with the tokenizer's as `vq`; names of the transformer's tensors begin
    with `gpt.` here, those of the tokenizer's with `vq.`, those of a T5 with `t5.`.
    """

    looks_for = "one c2i_*.pt or t2i_*.pt beside one vq_ds*.pt"
    without_effect: ClassVar = {
        "file": "the name of the transformer's file",
        "vq_file": "the name of the tokenizer's file",
        "image_size": "read with the files",
        "initializer_range": "the weights are loaded",
        "max_batch_size": "room for keys and values",
        "max_seq_len": "room for keys and values",
        **dict.fromkeys(("attn_dropout_p", "ffn_dropout_p", "drop_path_rate"), "in training only"),
        **{f"vq.{key}": reason for key, reason in LlamaGenTokenizer.without_effect.items()},
    }

    def recognises(self, folder: Folder) -> bool:
        return len(_transformers(folder.path)) == 1 and len(list(folder.path.glob("vq_ds*.pt"))) == 1

    def read(self, folder: Folder) -> Original:
        file, tokenizer = (find_named(folder.path, *forms) for forms in (TRANSFORMERS, ("vq_ds*.pt",)))
        drawn = read_wrapped(file, "model", "module", "state_dict")
        seen = find_family("llamagen-vq").read(Folder(tokenizer))
        config = {**structure(drawn, str(file)), **folder.config, "file": file.name}
        size = re.search(r"(?:_|stage\d_)(\d{3})\.pt$", file.name)
        scale = 2 ** (len(seen.config["encoder_ch_mult"]) - 1)
        side = int(size.group(1)) if size else config.get("image_size", SIZE)
        vq = {**seen.config, "res": side}
        config |= {"block_size": (side // scale) ** 2, "vq": vq, "vq_file": tokenizer.name}
        tensors = {GPT + key: t for key, t in drawn.items()}
        tensors |= {VQ + key: t for key, t in seen.tensors.items()}
        read = _text_encoder(folder.path) if config["model_type"] == "t2i" else {}
        if read:
            config |= {"t5": Folder(_t5(folder.path)).config}
        return Original(config, {**tensors, **read}, borrowed=list(read))

    def tokenizer(self, folder: Folder) -> Path | None:
        return _t5(folder.path) if next(folder.path.glob("t2i_*.pt"), None) else None

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        width, captions = config["dim"], config.only("model_type", "c2i", "t2i") == "t2i"
        vocabulary, grid = config["vocab_size"], math.isqrt(config["block_size"])
        sizes = config.get("multiple_of", 256), config.get("ffn_dim_multiplier")
        language = {
            "type": "llamagen",
            "width": width,
            "depth": config["n_layer"],
            "heads": config["n_head"],
            "key_value_heads": config.get("n_kv_head") or 0,
            "hidden": config.get("hidden_dim") or hidden_width(width, *sizes),
            "context": max(2048, config["block_size"] + config["cls_token_num"]),
            "rope_base": config.get("rope_base", 10000),
            "epsilon": config.get("norm_eps", 1e-5),
            "token_dropout": config.get("token_dropout_p", 0.1),
            "dropout": config.get("resid_dropout_p", 0.1),
        }
        if captions:
            published = {"caption_tokens": config["cls_token_num"], "caption_width": config["caption_dim"]}
            config.get("num_classes")  # the original reads it for classes alone
            language |= {"type": "llamagen_captions", "config": config.get("t5"), **published}
        else:
            config.only("cls_token_num", 1)
            config.get("caption_dim")  # the original reads it for captions alone
            language |= {"classes": config["num_classes"]}
        tokenizer = (
            find_family("llamagen-vq").model(config["vq"])["image_tokenizer"]
            if "vq" in config
            else stand_in(grid, vocabulary)
        )
        head = {
            "type": "raster",
            "alphabet": {"type": "own", "deviation": 0.0},
            "cells": False,
            "unconditional": config.get("class_dropout_prob", 0.1),
        }
        return {"language": language, "image_tokenizer": tokenizer, "heads": {"image": head}}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        tokenizer = find_family("llamagen-vq").names(config["vq"]) if "vq" in config else None
        sizes = {
            "width": config["dim"],
            "heads": config["n_head"],
            "key_value_heads": config.get("n_kv_head"),
        }
        return NameMap(
            Rule(GPT + "cls_embedding.embedding_table.weight", "language.table.weight"),
            Rule(GPT + "cls_embedding.uncond_embedding", "language.empty"),
            Rule(GPT + "cls_embedding.cap_proj.fc1.weight", "language.project.0.weight"),
            Rule(GPT + "cls_embedding.cap_proj.fc2.weight", "language.project.2.weight"),
            Rule(T5 + "{rest...}", "language.text_encoder.{rest...}"),
            Rule(GPT + "tok_embeddings.weight", "heads.image.alphabet.codes.weight"),
            *llama_rules(GPT + "layers.", "language.layers.", **sizes),
            Rule(GPT + "norm.weight", "language.norm.weight"),
            Rule(GPT + "output.weight", "heads.image.alphabet.output.weight"),
            *(behind(tokenizer, VQ) if tokenizer else [OwnTensors("image_tokenizer.{rest...}")]),
        )

    def remark(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> str:
        return find_family("llamagen-vq").remark(config["vq"]) if "vq" in config else ""

    def write(self, original: Original, folder: Path) -> None:
        parts = {
            prefix: {k.removeprefix(prefix): t for k, t in original.tensors.items() if k.startswith(prefix)}
            for prefix in (GPT, VQ)
        }
        torch.save({"model": parts[GPT]}, folder / original.config["file"])
        torch.save({"model": parts[VQ]}, folder / original.config["vq_file"])


def structure(drawn: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """The original's arguments, as far as tensors tell them; heads are those of the published widths."""
    try:
        vocabulary, width = drawn["tok_embeddings.weight"].shape
        hidden = len(drawn["layers.0.feed_forward.w1.weight"])
        fused = len(drawn["layers.0.attention.wqkv.weight"])
    except KeyError as error:
        raise CheckpointError(f"{where} is not LlamaGen's transformer: it lacks {error}") from None
    head_width = HEAD_WIDTH.get(width, 64)
    published: dict[str, Any] = {
        "dim": width,
        "n_layer": len({key.split(".")[1] for key in drawn if key.startswith("layers.")}),
        "n_head": width // head_width,
        "n_kv_head": (fused - width) // (2 * head_width),
        "vocab_size": vocabulary,
        "hidden_dim": hidden,
    }
    table = drawn.get("cls_embedding.embedding_table.weight")
    if table is not None:
        return {**published, "model_type": "c2i", "num_classes": len(table) - 1, "cls_token_num": 1}
    rows, caption_width = drawn["cls_embedding.uncond_embedding"].shape
    return {**published, "model_type": "t2i", "caption_dim": caption_width, "cls_token_num": rows}


def _t5(folder: Path) -> Path:
    """The folder of the text encoder beside a transformer for captions."""
    configs = [path.parent for path in sorted(folder.glob("*/config.json")) if b'"t5"' in path.read_bytes()]
    if len(configs) != 1:
        raise CheckpointError(
            f"{folder} holds {len(configs)} folders of a T5, but captions need one (LlamaGen's is flan-t5-xl), "
            "with its config.json, its weights and its tokenizer"
        )
    return configs[0]


def _text_encoder(folder: Path) -> dict[str, Tensor]:
    """The encoder's half of a T5; its table of words stands under one name."""
    tensors = read_tensors(_t5(folder))
    return {
        T5 + key: tensor
        for key, tensor in tensors.items()
        if (key.startswith("encoder.") or key == "shared.weight") and key != "encoder.embed_tokens.weight"
    }


def _transformers(folder: Path) -> list[Path]:
    return [file for form in TRANSFORMERS for file in folder.glob(form)]


@replays("llamagen", "Transformer")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Teacher-forced codes behind a class or a caption, and greedy pictures with guidance, some of it and none."""
    published, inputs = case.config, case.inputs
    tensors = {GPT + key: tensor for key, tensor in case.tensors.items()}
    config = {
        key: value for key, value in published.items() if key not in ("cfg_scale", "cfg_interval", "n_pad")
    }
    model = load(find_family("llamagen"), Original(config, tensors)).model
    head = model.image_head
    span = head.prepare(inputs["idx"].unflatten(1, head.space.grid))
    if published["model_type"] == "t2i":  # padding was hidden from the pictures drawn, not from those learnt
        learnt, prompts = (_captions(model, case, masked) for masked in (False, True))
    else:
        learnt = prompts = [prompt([int(each)]) for each in inputs["cond"]]
    hidden = forced(model, learnt, span)

    def drawn(guidance: float, guided_codes: int = 0) -> Tensor:
        head.guided_codes = guided_codes
        return draw(model, prompts, replace(GREEDY, guidance=max(guidance, 1.0))).flatten(1).int()

    # Of the original's steps the first has no number; the interval is the number of the last that is guided.
    guided_codes = published["cfg_interval"] + 2 if published["cfg_interval"] >= 0 else 0
    return {
        "logits": head.alphabet.logits(hidden),
        "loss": head.losses(hidden, span)["image"].mean,
        "greedy_cfg": drawn(published["cfg_scale"]),
        "greedy_cfg_interval": drawn(published["cfg_scale"], guided_codes),
        "greedy_nocfg": drawn(1.0),
        "freqs_cis": _rotary(model, published["cls_token_num"]),
    }


class _Recorded(nn.Module):
    """A text encoder that finds its features under the ids."""

    def __init__(self, table: Float[Tensor, "n c"]):
        super().__init__()
        self.table = table

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.table[input_ids])  # type: ignore[arg-type]


def _captions(model: Model, case: Case, masked: bool) -> list[Document]:
    """A case's features of captions as documents whose ids find them; padding is left out where it is hidden."""
    features = case.inputs["cond"]
    rows, length = features.shape[:2]
    pad = model.language.tokenizer.pad + 1  # ids below mean something to the language
    model.language.text_encoder = _Recorded(
        torch.cat([features.new_zeros(pad, features.shape[2]), features.flatten(0, 1)])
    )
    ids = torch.arange(rows * length).view(rows, length) + pad
    real = case.inputs["emb_masks"].bool() if masked else torch.ones_like(ids, dtype=torch.bool)
    return [prompt(row[real_tokens].tolist()) for row, real_tokens in zip(ids, real, strict=True)]


def _rotary(model: Model, before: int) -> Tensor:
    """The table of all rotations, those of the condition first."""
    assert model.image_tokenizer is not None
    rows, columns = model.image_tokenizer.grid
    cells = torch.arange(rows * columns)
    places = torch.cat([torch.zeros(before, dtype=torch.long), cells])[None]
    placed = torch.cat([torch.zeros(before, dtype=torch.bool), torch.ones_like(cells, dtype=torch.bool)])[
        None
    ]
    rotary = model.language.rotation(places // columns, places % columns, placed)  # type: ignore[operator]
    return torch.view_as_real(rotary)[0]
