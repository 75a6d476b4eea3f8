"""LVM (arXiv 2312.00785): its image tokenizer, open-muse's VQGAN, and its visual sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.data.documents import document
from chiasm.data.sample import Message, Sample
from chiasm.heads import GREEDY
from chiasm.inference.completion import VisualSentence, most_images
from chiasm.inference.engine import Engine
from chiasm.inference.reading import CodedImage, CodeReader
from chiasm.interop.config import reader
from chiasm.interop.convert import load
from chiasm.interop.families.vqgan import channels_first
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.drawing import behind
from chiasm.interop.parity.replay import CasePicture
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.towers import causal_config
from chiasm.sequence import pack
from chiasm.storage.folders import write_json, write_tensors
from chiasm.views import Size

VQGAN_KEYS = {"quantized_embed_dim", "hidden_channels"}
LANGUAGE, TOKENIZER = "model.", "tokenizer."
CONTEXT = 16  # frames of a visual sentence, the one to be written among them


class MuseVQGAN(Family, name="vqgan-muse"):
    """open-muse's layout: config.json beside the weights."""

    looks_for = "config.json with _class_name VQGANModel, or with quantized_embed_dim and hidden_channels"
    without_effect: ClassVar = {
        "_class_name": "the family is recognised by the keys that follow",
        "_version": "where the config came from",
        "_name_or_path": "where the config came from",
        "dropout": "in training only",
        "num_resolutions": "the length of channel_mult",
        "reduction_factor": "2 to the length of channel_mult less one",
        "latent_size": "the resolution over the reduction",
        "res": "the size of a case's image",
        "range01": "pixels are in [0, 1] always",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.keys() >= VQGAN_KEYS and _places(folder.path) is None

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        config = reader(config)
        config.only("num_channels", 3)
        multipliers = list(config.get("channel_mult", (1, 1, 2, 2, 4)))
        depth, size = config.get("num_res_blocks", 2), config.get("resolution", 256)
        deeper = _decoder_depths(config.get("decoder_res_blocks"), len(multipliers))
        attends = _list(config.get("attn_resolutions", (16,)))
        alone = [size // 2**level for level, blocks in enumerate(deeper) if blocks == 1]
        spec = {
            "type": "vqgan",
            "signed": False,
            "size": size,
            "width": config.get("hidden_channels", 128),
            "multipliers": multipliers,
            "depth": depth,
            "decoder_width": config.get("decoder_hidden_channels") or 0,
            "decoder_multipliers": list(config.get("decoder_channel_mult") or ()),
            "decoder_depths": deeper,
            "decoder_middle": config.get("extra_mid_res_blocks") or 0,
            # A level of a single block never attends, whatever the config says.
            "attention_sizes": attends if depth > 1 else [],
            "decoder_attention_sizes": [each for each in attends if each not in alone],
            "middle_attention": not config.get("no_attn_mid_block", False),
            "convolved": config.get("resample_with_conv", True),
            "latent_width": config.get("z_channels", 256),
            "quantizer": {
                "type": "nearest",
                "width": config.get("quantized_embed_dim", 256),
                "codebook_size": config.get("num_embeddings", 1024),
                "codebook_weight": config.get("commitment_cost", 0.25),
            },
        }
        return {"image_tokenizer": spec}

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        idle = [Unused("encoder.down.{level}.attn.{rest...}")] if config.get("num_res_blocks", 2) == 1 else []
        return NameMap(
            *idle,
            Unused("loss.{rest...}"),
            Rule("{rest...}", "image_tokenizer.{rest...}"),
        )


def _decoder_depths(blocks: int | list[int] | None, levels: int) -> list[int]:
    """Each of the decoder's levels has one block more than the config says; [] = than the encoder's."""
    if blocks is None:
        return []
    return [each + 1 for each in ([blocks] * levels if isinstance(blocks, int) else blocks)]


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


class LVM(Family, name="lvm"):
    """A Llama in transformers' layout whose words are codes, and open-muse's VQGAN, in two folders side by side, or
    one inside the other.

    The Llama's config is the config, with the tokenizer's as `vq`; names of the tokenizer's tensors begin with
    `tokenizer.` here, the Llama's with `model.`.
    """

    looks_for = "config.json of a Llama and config.json of a VQGANModel, in two folders"
    without_effect: ClassVar = {
        "places": "where the two folders were",
        **{f"vq.{key}": reason for key, reason in MuseVQGAN.without_effect.items()},
    }

    def recognises(self, folder: Folder) -> bool:
        return _places(folder.path) is not None

    def read(self, folder: Folder) -> Original:
        llama, vqgan = _places(folder.path) or (folder.path, folder.path)
        llama_config = Folder(llama).config
        config = {**llama_config, "vq": Folder(vqgan).config}
        config |= {"places": [str(place.relative_to(folder.path)) for place in (llama, vqgan)]}
        tensors = {LANGUAGE + key: tensor for key, tensor in Folder(llama).tensors.items()}
        return Original(config, tensors | {TOKENIZER + k: t for k, t in Folder(vqgan).tensors.items()})

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        llama = {key: value for key, value in config.items() if key not in ("vq", "places")}
        language = causal_config(llama, "llama")
        head = {
            "type": "raster",
            "alphabet": {"type": "shared", "first": 0},
            "cells": False,
            "unconditional": 0.0,
        }
        return {
            "language": {**language, "vocabulary": 0, "draw_marker": None},
            **find_family("vqgan-muse").model(config["vq"]),
            "heads": {"image": head},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        return NameMap(
            *behind(find_family("vqgan-muse").names(config["vq"]), TOKENIZER),
            Unused(LANGUAGE + "model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule(LANGUAGE + "{rest...}", "language.inner.{rest...}"),
        )

    def write(self, original: Original, folder: Path) -> None:
        config = dict(original.config)
        vq = config.pop("vq")
        for prefix, part, place in zip(
            (LANGUAGE, TOKENIZER), (config, vq), config.pop("places"), strict=True
        ):
            tensors = {k.removeprefix(prefix): t for k, t in original.tensors.items() if k.startswith(prefix)}
            (folder / place).mkdir(parents=True, exist_ok=True)
            write_json(folder / place / "config.json", part)
            write_tensors(folder / place / "model.safetensors", tensors)


def _places(folder: Path) -> tuple[Path, Path] | None:
    """The folders of the Llama and of the tokenizer, or None where it is not one of each."""
    configs = {path.parent: Folder(path.parent).config for path in folder.glob("config.json")}
    configs |= {path.parent: Folder(path.parent).config for path in sorted(folder.glob("*/config.json"))}
    tokenizers = [place for place, config in configs.items() if config.keys() >= VQGAN_KEYS]
    llamas = [place for place, config in configs.items() if config.get("model_type") == "llama"]
    return (llamas[0], tokenizers[0]) if len(tokenizers) == len(llamas) == 1 else None


@replays("lvm", "VQGANModel + LlamaForCausalLM")
@torch.no_grad()
def replay_sentence(case: Case) -> dict[str, Tensor]:
    """A visual sentence: frames as codes, which are the language model's only words, and the frame that follows."""
    config, frames = case.config, case.inputs["frames"]
    model = load(find_family("lvm"), Original(_published(config), case.tensors)).model
    codes = model.image_tokenizer.encode(frames)
    size = Size(model.image_tokenizer.size, model.image_tokenizer.size)
    pictures = [CasePicture(f"frame {i}", size, frame[None]) for i, frame in enumerate(frames)]
    sentence = [CodedImage(picture, each) for picture, each in zip(pictures, codes, strict=True)]
    length = codes[0].numel()
    sample = Sample("the sentence", (Message("document", tuple(sentence)),))
    model.language.context = len(sentence) * length
    batch, slots = pack([[document(model.contract, sample)]])
    batch = CodeReader(model).attach(batch, slots)
    embeddings, layout, span = model.embed(batch)
    hidden = model.language(embeddings, layout)[0]
    last = model.image_head.losses(
        hidden[None, -length - 1 : -1], span._replace(targets=span.targets[-1:], orphans=None)
    )
    model.language.context = config.get("context", CONTEXT) * length
    seen = sentence[1 - most_images(model) :]  # with the one to come, as many as the context holds
    request = VisualSentence(model, seen, GREEDY, [0])
    Engine(model).submit(request).result()
    drawn = request.targets[0]
    return {
        "ids": codes.flatten()[None],
        "logits_last": model.language.logits(hidden)[None, -length:],
        "perplexity_last_frame": last["image"].mean.exp(),
        "new_tokens": drawn.flatten(1),
        "new_image": model.image_tokenizer.decode(drawn),
    }


def _published(config: Mapping[str, Any]) -> dict[str, Any]:
    """A case's config as config.json has it."""
    return {
        "model_type": "llama",
        "vocab_size": config["n_code"] + config["n_special"],
        "hidden_size": config["hidden"],
        "intermediate_size": config["inter"],
        "num_hidden_layers": config["layers"],
        "num_attention_heads": config["heads"],
        "vq": config["vq"],
    }
