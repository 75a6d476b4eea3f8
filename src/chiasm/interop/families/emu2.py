"""Emu2 (arXiv 2312.13286): images are read as the pooled features of a tower, which are also what is drawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import NameMap
from chiasm.interop.shapes import emu2
from chiasm.interop.shapes.latent_diffusion import image_size, network_parts, network_rules, read_networks
from chiasm.storage.folders import write_json, write_tensors

MULTIMODAL = "multimodal_encoder/"  # the folder of all but the networks of diffusion, in Emu2-Gen
BEGIN, END = "[IMG]", "[/IMG]"
STEPS, GUIDANCE = 50, 3.0
# What the original adds to LLaMA's tokenizer when it runs, from id 32000 on.
TOKENS = (
    *("[PAD]", "[IMG]", "[/IMG]", "<image>", "[gIMG]", "[/gIMG]", "[EOC]", "[VIDEO]"),
    *(
        "<grounding>",
        "<phrase>",
        "</phrase>",
        "<object>",
        "</object>",
        "</delimiter_of_multi_objects/>",
        "<REC>",
    ),
    *(f"<patch_index_{i:04}>" for i in range(257)),
)
INSTRUCTED = ("[USER]", "[ASSISTANT]")
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[USER]: {{ message['content'] }}[ASSISTANT]:"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)


class Emu2(Family, name="emu2"):
    """BAAI's Emu2, Emu2-Chat and Emu2-Gen, in transformers' layout and the original's own.

    The original's own has no config: what its tensors do not tell is as published. What guidance leads away from
    is the image that the model draws after an empty prompt.
    """

    looks_for = (
        "config.json of EmuForCausalLM, multimodal_encoder/ beside unet/ and vae/, or Emu2's own tensors"
    )

    without_effect: ClassVar = {
        **EVERYWHERE,
        "emu.vision_config.eva_model_name": "a name",
        "emu.vision_config.drop_path_rate": "in training only",
        "emu.vision_config.patch_dropout": "in training only",
        "emu.vision_config.xattn": "speed only",
        "emu.vision_config.global_average_pool": "of a classifier that is not there",
        "emu.vision_config.pt_hw_seq_len": "of rotary positions, which the tower does without",
        "emu.vision_config.intp_freq": "of rotary positions, which the tower does without",
        "emu.vision_config.v_query": "of videos, which are not read",
        "emu.auto_map": "names of the original's code",
        "emu.model_type": "the family's",
    }

    def recognises(self, folder: Folder) -> bool:
        place = folder.path
        if (place / MULTIMODAL).is_dir():
            return all((place / name).is_dir() for name in ("unet", "vae"))
        if folder.config:
            return "EmuForCausalLM" in folder.config.get("architectures", ())
        alone = any(
            (place / name).is_file() for name in ("pytorch_model.bin", "pytorch_model.bin.index.json")
        )
        return alone and {"visual.cls_token", "decoder.lm.lm_head.weight"} <= folder.tensors.keys()

    def read(self, folder: Folder) -> Original:
        place = folder.path
        if not (place / MULTIMODAL).is_dir():
            return Original(_described(folder.config, folder.tensors), dict(folder.tensors))
        tensors = folder.read(place / MULTIMODAL)
        config = _described(folder.json(MULTIMODAL + "config.json"), tensors)
        networks, drawn = read_networks(folder, place)
        inner = {MULTIMODAL + key: tensor for key, tensor in tensors.items()}
        return Original(config | networks, inner | drawn)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        emu = config["emu"]
        tokenizer = emu2.vision(emu["vision_config"])
        if emu["d_model"] != tokenizer["encoder"]["width"]:
            raise CheckpointError(
                f"d_model is {emu['d_model']}, but the tower has {tokenizer['encoder']['width']} channels"
            )
        markers = {"draw_marker": BEGIN, "draw_end": END}
        head = {"type": "raster", "cells": False, "alphabet": {"type": "regression", "guides": "decoder"}}
        spec: dict[str, dict[str, Any]] = {
            "language": {**emu2.language(emu), **markers},
            "image_tokenizer": tokenizer,
            "heads": {"image": head},
        }
        if "unet" in config:
            size = image_size(config)
            spec["image_decoder"] = {
                "type": "diffusion",
                "size": size,
                "conditioner": {"type": "vectors"},
                **{"steps": STEPS, "guidance": 1.0},  # that of a request acts on the decoder
                **network_parts(config, size),
            }
        return spec

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        place = MULTIMODAL if any(key.startswith(MULTIMODAL) for key in keys) else ""
        networks = network_rules("unet/", "vae/") if "unet" in config else []
        return NameMap(*networks, *emu2.rules(config["emu"], keys, place))

    def tokenizer(self, folder: Folder) -> Path | None:
        beside = folder.path / "tokenizer"
        return beside if beside.is_dir() else Folder(folder.path / MULTIMODAL).tokenizer or folder.tokenizer

    def chat_template(self, config: Mapping[str, Any]) -> dict[str, str]:
        chats = config["emu"].get("model_version") == "chat"
        return {"default": CHAT if chats else PLAIN, "draw": PLAIN}

    def added_tokens(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Those that the model has a row for; in transformers' layout the tokenizer has them."""
        count = config["emu"]["vocab_size"] if config.get("adds_tokens") else 0
        numbered = enumerate((*TOKENS, *INSTRUCTED), 32000)
        return {token: id for id, token in numbered if id < count}

    def remark(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> str:
        return f"its pipeline draws with guidance {GUIDANCE:g}" if "unet" in config else ""

    def write(self, original: Original, folder: Path) -> None:
        files: dict[str, dict[str, Tensor]] = {}
        for name, tensor in original.tensors.items():
            place, _, key = name.rpartition("/")
            files.setdefault(place, {})[key] = tensor.contiguous()
        for name, content in original.config.items():
            if name == "adds_tokens":
                continue
            below = (MULTIMODAL if "unet" in original.config else "") if name == "emu" else name + "/"
            file = "scheduler_config.json" if name == "scheduler" else "config.json"
            (folder / below).mkdir(parents=True, exist_ok=True)
            write_json(folder / below / file, content)
        for place, tensors in files.items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            file = "diffusion_pytorch_model" if place in ("unet", "vae") else "model"
            write_tensors(folder / place / f"{file}.safetensors", tensors)


def _described(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config of the multimodal model; the original's own layout has none, and adds tokens when it runs."""
    return {"emu": config} if config else {"emu": emu2.from_shapes(tensors), "adds_tokens": True}
