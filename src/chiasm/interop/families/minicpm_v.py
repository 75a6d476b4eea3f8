"""MiniCPM-V 1, 2.0, 2.5 and 2.6 (arXiv 2408.01800): a SigLIP, slices, and a resampler that knows places."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError, nearest
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.family import Family, Folder, Original
from chiasm.interop.mapping import Chain, NameMap, OwnTensors, Permute, Reshape, Rule, Unused
from chiasm.interop.shapes.resampler_2d import resampler_rules
from chiasm.interop.shapes.timm_siglip import KNOWN
from chiasm.interop.shapes.towers import causal_config, normalisation, plain_config, preprocessor, tower_rules
from chiasm.language import minicpm as _minicpm  # noqa: F401 - makes it known to transformers
from chiasm.language.tokenizer_folder import folder_template
from chiasm.language.turns import IMAGE_LINES

WORDS = "image_words"  # not in the original's config: the words round images, of its preprocessor
TEMPLATE = "chat_template"  # likewise: the tokenizer's, with a line's end behind images
HEAD_WIDTH = 128  # of the resampler
CONTENT = "message['content']"
TURNS = (  # of MiniCPM-2.4B, as MiniCPM-V 1 and 2.0 are asked
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}<AI>"
    "{{ message['content'] }}{{ eos_token }}{% elif message['role'] == 'user' %}<用户>{{ "
    + IMAGE_LINES
    + " }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<AI>{% endif %}"
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ " + IMAGE_LINES + " }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The config's keys that are not of its language model.
OWN = frozenset({
    "batch_vision_input", "drop_vision_last_layer", "image_size", "max_slice_nums", "mm_use_im_start_end",
    "patch_size", "query_num", "resampler_heads", "scale_resolution", "slice_config", "slice_mode", "use_image_id",
    "version", "vision_batch_size", "vision_config", "vision_encoder", TEMPLATE, WORDS,
})  # fmt: skip
# Words round images by the preprocessor's keys, as it has them where it is silent.
USUAL = {
    **{"im_start": "<image>", "im_end": "</image>", "slice_start": "<slice>", "slice_end": "</slice>"},
    **{"im_id_start": "<image_id>", "im_id_end": "</image_id>"},
}


class MiniCPMV(Family, name="minicpm-v"):
    """The layout of openbmb/MiniCPM-V, MiniCPM-V-2, MiniCPM-Llama3-V-2_5 and MiniCPM-V-2_6 (model_type minicpmv).

    The config of 1 and 2.0 names its vision tower's structure; one that is not known stands in it under its name.
    """

    looks_for = "config.json with model_type minicpmv, and vision_encoder or vision_config"
    own_conversation = True

    without_effect: ClassVar = {
        **EVERYWHERE,
        "batch_vision_input": "views of one size are encoded together in any case",
        "vision_batch_size": "of memory",
        "image_size": "of whole images; slices have a size of their own",
        "patch_size": "the tower's is used, and slices are cut for it",
        "mm_use_im_start_end": "words stand round images in any case",
        "slice_config.model_type": "of the config itself",
        "version": "read where words round images depend on it",
        "pretraining_tp": "how a product is split",
    }

    def recognises(self, folder: Folder) -> bool:
        config = folder.config
        return config.get("model_type") == "minicpmv" and bool(
            {"vision_encoder", "vision_config"} & config.keys()
        )

    def read(self, folder: Folder) -> Original:
        prepared, template = preprocessor(folder), folder_template(folder.path)
        words = {key: prepared[key] for key in USUAL if key in prepared}
        own = template if isinstance(template, str) else (template or {}).get("default")
        added = {WORDS: words, **({TEMPLATE: own.replace(CONTENT, IMAGE_LINES)} if own else {})}
        return Original({**folder.config, **added}, dict(folder.tensors))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        native = "vision_config" in config
        language, sliced = _language(config, keys), _sliced(config)
        positions = "keys" if native else "both" if "slice_mode" in config else "resized"
        heads = config.get("resampler_heads") or language["config"].get("hidden_size", 4096) // HEAD_WIDTH
        words = {**USUAL, **config.get(WORDS, {})}
        numbered = bool(config.get("use_image_id", False)) and native
        begin = f"{words['im_id_start']}{{number}}{words['im_id_end']}" if numbered else None
        return {
            "views": _slices(config, words) if sliced else _whole(config),
            "encoder": _native(config) if native else _timm(config),
            "connector": {
                "type": "resampler_2d",
                "queries": config.get("query_num", 64),
                "heads": heads,
                "positions": positions,
            },
            "language": {
                **language,
                "read_marker": begin if sliced else words["im_start"],
                "read_end": None if sliced else words["im_end"],
            },
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config, keys)
        encoder, positions = spec["encoder"], spec["connector"]["positions"]
        width = spec["language"]["config"].get("hidden_size", 4096)
        return NameMap(
            *(_timm_rules(encoder) if encoder["type"] == "vit" else tower_rules(encoder, "vpm.")),
            *resampler_rules(width, "resampler.", "connector.", placed=positions != "keys"),
            Unused("llm.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("llm.{rest...}", "language.inner.{rest...}"),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        normal = normalisation(folder, key="norm")
        if "vision_config" in folder.config:
            return normal or {f"encoder.{each}": torch.full((3, 1, 1), 0.5) for each in ("mean", "deviation")}
        if any(not bool((value == 0.5).all()) for value in normal.values()):
            raise CheckpointError(
                f"{folder.path}: its preprocessor's norm_mean and norm_std must be 0.5, as its tower has them"
            )
        return {}

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        own = config.get(TEMPLATE)
        return own or (CHATML if "vision_config" in config else TURNS)

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(WORDS).without(TEMPLATE), folder)


def _language(config: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """MiniCPM beside a timm tower; else Qwen2 (2.6) or Llama 3 (2.5), which differ in biases."""
    options = {key: config[key] for key in config if key not in OWN and key != config.get("vision_encoder")}
    if "vision_config" not in config:
        return causal_config({**options, "model_type": "minicpm"}, "minicpm")
    biased = any(re.fullmatch(r"llm\..*\.self_attn\.q_proj\.bias", key) for key in keys)
    kind = "qwen2" if biased or (not keys and "use_sliding_window" in config) else "llama"
    return causal_config({**options, "model_type": kind}, kind)


def _sliced(config: Mapping[str, Any]) -> bool:
    return ("slice_mode" in config and bool(config["slice_mode"])) or "vision_config" in config


def _slices(config: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    slicing = config.get("slice_config") or {}
    image, piece = (words["im_start"], words["im_end"]), (words["slice_start"], words["slice_end"])
    # Since 2.6 a slice has words of its own, and nothing stands round all of them.
    newer = "use_image_id" in config
    return {
        "type": "slices",
        "size": slicing.get("scale_resolution", config.get("scale_resolution", 448)),
        "slices": slicing.get("max_slice_nums", config.get("max_slice_nums", 9)),
        "patch": slicing.get("patch_size", config.get("patch_size", 14)),
        "overview_words": image,
        "slice_words": piece if newer else image,
        "slices_words": ("", "") if newer else piece,
    }


def _whole(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "whole", "size": config.get("image_size", 448), "fit": "stretch"}


def _native(config: Mapping[str, Any]) -> dict[str, Any]:
    vision = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, **config["vision_config"]}
    if config.get("drop_vision_last_layer", True):
        vision["num_hidden_layers"] = vision["num_hidden_layers"] - 1
    return {
        "type": "siglip_native",
        "config": plain_config(vision, "siglip_vision_model"),
        "layer": -1,
        "final_norm": True,
        "counted": True,
    }


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's SigLIP; its table of positions is of whole patches of the size for which it was made."""
    name = config["vision_encoder"].removesuffix(".webli")
    if name not in config and name not in KNOWN:
        raise CheckpointError(f"vision_encoder is {name!r}{nearest(name, KNOWN)}")
    known: Any = KNOWN
    shape = config[name] if name in config else {**known[name], "img_size": int(name.rpartition("_")[2])}
    patch, width = shape["patch_size"], shape["width"]
    depth = shape["layers"] - bool(config.get("drop_vision_last_layer", True))
    return {
        "type": "vit",
        "patch_size": patch,
        "width": width,
        "depth": depth,
        "heads": shape["heads"],
        "mlp_ratio": int(width * shape["mlp_ratio"]) / width,
        "size": shape["img_size"] // patch * patch,
        "epsilon": 1e-6,
    }


def _timm_rules(encoder: Mapping[str, Any]) -> list[Rule | Unused | OwnTensors]:
    side, width = encoder["size"] // encoder["patch_size"], encoder["width"]
    theirs, ours = "vpm.blocks.{n}.", "encoder.blocks.{n}."
    table = Chain((Permute((0, 2, 1)), Reshape((1, width, side**2), (1, width, side, side))))
    layers = {
        **{"norm1": "attention_norm", "norm2": "mlp_norm", "attn.qkv": "qkv", "attn.proj": "out"},
        **{"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"},
    }
    return [
        Unused(f"vpm.blocks.{encoder['depth']}.{{rest...}}"),
        Unused("vpm.attn_pool.{rest...}"),
        Rule("vpm.patch_embed.proj.{p}", "encoder.patchify.{p}"),
        Rule("vpm.pos_embed", "encoder.positions", table),
        *[Rule(f"{theirs}{name}.{{p}}", f"{ours}{our_name}.{{p}}") for name, our_name in layers.items()],
        Rule("vpm.norm.{p}", "encoder.norm.{p}"),
    ]
