"""DeepSeek-VL in transformers' layout, with SigLIP alone and with SAM beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.convert import load
from chiasm.interop.families.deepseek_vl import TEMPLATE
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.activations import activation_name
from chiasm.interop.shapes.sam import attention_rules
from chiasm.interop.shapes.towers import (
    causal_config,
    normalisation,
    settings,
    tower,
    tower_rules,
    with_padding,
)
from chiasm.views import GREY, Size

CLASSES = {
    "deepseek_vl": "DeepseekVLForConditionalGeneration",
    "deepseek_vl_hybrid": "DeepseekVLHybridForConditionalGeneration",
}
PADDING = "padding_color"  # not in the original's config: of the mean of its preprocessor
HIGH, LOW = "encoder.encoders.0", "encoder.encoders.1"


class DeepseekVLTransformers(Family, name="deepseek-vl-hf"):
    """The layout of DeepseekVLForConditionalGeneration and of its hybrid (deepseek-community on the hub)."""

    looks_for = "config.json with model_type deepseek_vl or deepseek_vl_hybrid"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "image_token_id": "an id in a prompt, where images are put without it",
        "tie_word_embeddings": "the tensors tell",
        "image_token_index": "an id in a prompt, where images are put without it",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") in CLASSES

    def read(self, folder: Folder) -> Original:
        which = "high_res_image_mean" if _is_hybrid(folder.config) else "image_mean"
        return with_padding(folder, PADDING, which)

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        text, hybrid = config["text_config"], _is_hybrid(config)
        if keys and "lm_head.weight" not in keys:  # tied by the outer config, which released ones do not mean
            text = {**text, "tie_word_embeddings": True}
        low = tower(config["vision_config"], "siglip_vision_model", layer=-1, final_norm=True)
        vision = settings(low["config"])
        size = settings(_sam_config(config)).image_size if hybrid else vision.image_size
        encoder = low
        if hybrid:
            sam = _sam(_sam_config(config), side=vision.image_size // vision.patch_size)
            encoder = {"type": "hybrid", "encoders": [sam, low], "sizes": [None, vision.image_size]}
        return {
            "views": {"type": "letterbox", "size": size, "padding": tuple(config.get(PADDING, GREY))},
            "encoder": encoder,
            "connector": {"type": "split_mlp", "widths": [sam["downsample"][-1], vision.hidden_size]}
            if hybrid
            else {"type": "mlp", "depth": 2},
            "language": causal_config(text, text.get("model_type", "llama")),
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        encoder = self.model(config)["encoder"]
        nested = not keys or any(key.startswith("model.vision_model.vision_model.") for key in keys)
        prefix = f"model.vision_model.{'vision_model.' if nested else ''}"
        if _is_hybrid(config):
            vision = [*_sam_rules(), *tower_rules(encoder["encoders"][1], prefix, LOW)]
        else:
            vision = [
                *tower_rules(encoder, prefix),
                Rule("model.aligner.linear1.{p}", "connector.layers.0.{p}"),
                Rule("model.aligner.linear2.{p}", "connector.layers.2.{p}"),
            ]
        return NameMap(
            *vision,
            Unused("model.language_model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("model.language_model.{rest...}", "language.inner.model.{rest...}"),
            Rule("lm_head.weight", "language.inner.lm_head.weight"),
        )

    def config(self, model: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        encoder, connector = model["encoder"], model["connector"]
        if encoder["type"] != "transformers" or connector["type"] != "mlp" or connector["depth"] != 2:
            raise CheckpointError(
                "'deepseek-vl-hf' needs the encoder 'transformers' and the connector 'mlp' of depth 2"
            )
        whole = encoder["layer"] == -1 and encoder["final_norm"] and connector["bias"]
        if not whole or connector["activation"] != "gelu" or "siglip" not in encoder["config"]["model_type"]:
            raise CheckpointError(
                "'deepseek-vl-hf' needs a SigLIP with layer -1 and final_norm, and an MLP with bias and GELU"
            )
        size = settings(encoder["config"]).image_size
        if model["views"]["type"] != "letterbox" or model["views"]["size"] != size:
            raise CheckpointError(
                f"'deepseek-vl-hf' needs the views 'letterbox' of size {size}, as its tower"
            )
        text = model["language"]["config"]
        return {
            "architectures": [CLASSES["deepseek_vl"]],
            "model_type": "deepseek_vl",
            "image_token_id": 0,
            "vision_config": {**encoder["config"], "vision_use_head": False},
            "text_config": text,
            "tie_word_embeddings": text.get("tie_word_embeddings", False),
        }

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(PADDING), folder)

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        if not _is_hybrid(folder.config):
            return normalisation(folder)
        return normalisation(folder, LOW) | normalisation(folder, HIGH, "high_res_image")

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE


def _is_hybrid(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "deepseek_vl_hybrid" or "high_res_vision_config" in config


def _sam_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config.get("high_res_vision_config", {}), "model_type": "sam_vision_model"}


def _sam(config: Mapping[str, Any], side: int) -> dict[str, Any]:
    """The encoder `sam` for transformers' config, resized so that it makes `side` rows of features."""
    sam = settings(config)
    return {
        "type": "sam",
        "size": sam.image_size,
        "patch_size": sam.patch_size,
        "width": sam.hidden_size,
        "depth": sam.num_hidden_layers,
        "heads": sam.num_attention_heads,
        "hidden": sam.mlp_dim,
        "activation": activation_name(sam.hidden_act),
        "window": sam.window_size,
        "global_layers": list(sam.global_attn_indexes),
        "bias": sam.qkv_bias,
        "absolute": sam.use_abs_pos,
        "relative": sam.use_rel_pos,
        "neck": sam.output_channels,
        "downsample": [2 * sam.output_channels, 4 * sam.output_channels],
        "resize": 4 * side,
        "early": True,
        "epsilon": sam.layer_norm_eps,
    }


def _sam_rules() -> list[Rule | OwnTensors]:
    prefix = "model.high_res_vision_model.vision_encoder."
    theirs, ours = prefix + "layers.{n}.", HIGH + ".blocks.{n}."
    necks = {prefix + "neck.": HIGH + ".neck.", "model.high_res_vision_neck.": HIGH + ".early_neck."}
    return [
        Rule(prefix + "patch_embed.projection.{p}", HIGH + ".patchify.{p}"),
        Rule(prefix + "pos_embed", HIGH + ".positions"),
        Rule(theirs + "layer_norm1.{p}", ours + "attention_norm.{p}"),
        Rule(theirs + "layer_norm2.{p}", ours + "mlp_norm.{p}"),
        Rule(theirs + "mlp.lin1.{p}", ours + "mlp.0.{p}"),
        Rule(theirs + "mlp.lin2.{p}", ours + "mlp.2.{p}"),
        *attention_rules(theirs, ours),
        *[
            Rule(f"{neck}{layer}.{{p}}", f"{our_neck}{place}.{{p}}")
            for neck, our_neck in necks.items()
            for place, layer in enumerate(("conv1", "layer_norm1", "conv2", "layer_norm2"))
        ],
        Rule("model.high_res_vision_proj.conv1.{p}", HIGH + ".downsample.0.{p}"),
        Rule("model.high_res_vision_proj.conv2.{p}", HIGH + ".downsample.1.{p}"),
        Rule("model.high_res_vision_alpha", HIGH + ".early_scale"),
        Rule("model.aligner.high_res_vision_proj.{p}", "connector.shares.0.{p}"),
        Rule("model.aligner.vision_proj.{p}", "connector.shares.1.{p}"),
        Rule("model.aligner.proj.{p}", "connector.layers.1.{p}"),
        OwnTensors(HIGH + ".mean"),
        OwnTensors(HIGH + ".deviation"),
    ]


@replays("deepseek_vl", *CLASSES.values())
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """A hybrid is given a picture twice, at either tower's size."""
    inputs, config = case.inputs, case.config
    model = load(find_family("deepseek-vl-hf"), Original(config, case.tensors)).model
    if _is_hybrid(config):
        high, low = model.encoder.encoders
        pixels = [
            unnormalised(high, inputs["high_res_pixel_values"]),
            unnormalised(low, inputs["pixel_values"]),
        ]
        features, side = model.encoder.joined(pixels), pixels[0].shape[-2:]
    else:
        pixels = [unnormalised(model.encoder, inputs["pixel_values"])]
        features, side = model.encoder(pixels[0]), pixels[0].shape[-2:]
    images = [CasePicture(f"{i}", Size(*side), each[None]) for i, each in enumerate(features)]
    mask, image = inputs["attention_mask"].bool(), config["image_token_id"]
    documents = [
        case_document(model, row[real], images, image, repeated=True)
        for row, real in zip(inputs["input_ids"], mask, strict=True)
    ]
    read = read_documents(model, documents, encoded=True)
    outputs = {"image_features": model.connector(features), "logits": scattered(read.logits, mask)}
    if _is_hybrid(config):
        outputs["high_res_features"] = features[..., : high.width].flatten(1, 2)
    return outputs
