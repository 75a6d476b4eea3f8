"""LVM (arXiv 2312.00785): its image tokenizer, open-muse's VQGAN, and its visual sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from chiasm.errors import CheckpointError
from chiasm.interop.cases import Case
from chiasm.interop.convert import _built, load, load_named
from chiasm.interop.families.vqgan import channels_first
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.replay import case_document, read_documents
from chiasm.interop.verify import replays
from chiasm.recipe import load_recipe

CONTEXT = 16  # frames of a visual sentence, the one to be written among them


class MuseVQGAN(Family, name="vqgan-muse"):
    """open-muse's layout: config.json beside the weights."""

    looks_for = "config.json with _class_name VQGANModel, or with quantized_embed_dim and hidden_channels"

    def recognises(self, folder: Folder) -> bool:
        return {"quantized_embed_dim", "hidden_channels"} <= folder.config.keys()

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        if not config.get("resample_with_conv", True) or config.get("num_channels", 3) != 3:
            raise CheckpointError("only pictures of 3 channels and resample_with_conv are known")
        spec = {
            "type": "vqgan_muse",
            "size": config.get("resolution", 256),
            "width": config.get("hidden_channels", 128),
            "multipliers": list(config.get("channel_mult", (1, 1, 2, 2, 4))),
            "depth": config.get("num_res_blocks", 2),
            "attention_sizes": _list(config.get("attn_resolutions", (16,))),
            "middle_attention": not config.get("no_attn_mid_block", False),
            "latent_width": config.get("z_channels", 256),
            "code_width": config.get("quantized_embed_dim", 256),
            "codebook_size": config.get("num_embeddings", 1024),
            "codebook_weight": config.get("commitment_cost", 0.25),
        }
        return {"image_tokenizer": spec}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        idle = [Unused("encoder.down.{level}.attn.{rest...}")] if config.get("num_res_blocks", 2) == 1 else []
        return NameMap(
            *idle,
            Unused("loss.{rest...}"),
            Rule("{rest...}", "image_tokenizer.{rest...}"),
        )


def _list(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value or ())


@replays("lvm", "VQGANModel (open-muse)")
@torch.no_grad()
def replay_tokenizer(case: Case) -> dict[str, Tensor]:
    """The picture through nearest codes, its loss, and how near all codes are."""
    tokenizer = load(find_family("vqgan-muse"), Original(case.config, case.tensors)).model["image_tokenizer"]
    pixels = case.inputs["img"]
    latents = tokenizer.latents(pixels)
    quantized = tokenizer.quantize(latents)
    codes = quantized.codes.flatten(1)
    squares = torch.cdist(latents.flatten(1, 2), tokenizer.quantize.embedding.weight).square()
    rows, places, _ = case.outputs["soft_code"].shape
    return {
        "z": channels_first(latents),
        "quant": channels_first(quantized.vectors),
        "indices": codes,
        "loss": torch.stack([each.weight * each.mean for each in quantized.losses.values()]).sum(),
        "rec": tokenizer.render(quantized.vectors),
        "code": tokenizer.quantize.encode(latents).flatten(1),
        "soft_code": (-squares).softmax(-1)[:rows, :places],
    }


@replays("lvm", "VQGANModel + LlamaForCausalLM")
@torch.no_grad()
def replay_sentence(case: Case) -> dict[str, Tensor]:
    """A visual sentence: frames as codes, which are the language model's only words, and the frame that follows."""
    told, frames = case.config, case.inputs["frames"]
    prefix = "tokenizer."
    theirs = {key.removeprefix(prefix): t for key, t in case.tensors.items() if key.startswith(prefix)}
    tokenizer = load(find_family("vqgan-muse"), Original(told["vq"], theirs)).model["image_tokenizer"]
    model = _language(told, case)
    codes = tokenizer.encode(frames).flatten(1)
    ids, length = codes.flatten(), codes.shape[1]
    logits = _read(model, ids)
    errors = functional.cross_entropy(logits[-length - 1 : -1], codes[-1])
    sentence = ids[-(told.get("context", CONTEXT) - 1) * length :]
    for _ in range(length):
        chances = _read(model, sentence)[-1, : told["n_code"]]  # the words left over are never written
        sentence = torch.cat([sentence, chances.argmax()[None]])
    new = sentence[-length:]
    return {
        "ids": ids[None],
        "logits_last": logits[None, -length:],
        "perplexity_last_frame": errors.exp(),
        "new_tokens": new[None],
        "new_image": tokenizer.decode(new.view(1, *tokenizer.grid)),
    }


def _language(told: Mapping[str, Any], case: Case) -> Any:
    """Its Llama, in transformers' own names."""
    config = {
        "model_type": "llama",
        "vocab_size": told["n_code"] + told["n_special"],
        "hidden_size": told["hidden"],
        "intermediate_size": told["inter"],
        "num_hidden_layers": told["layers"],
        "num_attention_heads": told["heads"],
        "max_position_embeddings": 4096,
    }
    raw = {
        "name": "lvm",
        "model": {"language": {"type": "causal", "config": config}},
        "data": {},
        "stages": [],
    }
    model = _built(load_recipe(raw).model, None).eval()
    names = NameMap(Unused("tokenizer.{rest...}"), Rule("model.{rest...}", "language.inner.{rest...}"))
    ours, _ = names.to_ours(case.tensors, case.name)
    load_named(model, ours, names, case.name)
    return model


def _read(model: Any, ids: Tensor) -> Tensor:
    document = case_document(model, ids, [], image=-1, repeated=False)
    return read_documents(model, [document]).logits[0]
