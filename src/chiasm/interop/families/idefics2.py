"""Idefics2 (arXiv 2405.02246) in transformers' layout."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE
from chiasm.interop.convert import load
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.towers import causal_config, normalisation, plain_config, preprocessor, tower_rules
from chiasm.views import Size

BOUNDS = "image_bounds"  # not in the original's config: `size` of its preprocessor
# Their names in a layer of the perceiver, and ours.
LAYER = (
    ("input_latents_norm", "latent_norm"),
    ("input_context_norm", "feature_norm"),
    ("self_attn.q_proj", "query"),
    ("self_attn.k_proj", "key"),
    ("self_attn.v_proj", "value"),
    ("self_attn.o_proj", "output"),
    ("post_attention_layernorm", "mlp_norm"),
    ("mlp.gate_proj", "mlp.gate"),
    ("mlp.up_proj", "mlp.up"),
    ("mlp.down_proj", "mlp.down"),
)
# Fields that SigLIP's config has as well.
SIGLIP = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
)
PERCEIVER = "model.connector.perceiver_resampler."
PROJECTION = "model.connector.modality_projection."
TOWER = "model.vision_model."
TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() }}:"
    "{% if message['content'][0]['type'] != 'image' %}{{ ' ' }}{% endif %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


class Idefics2(Family, name="idefics2"):
    """The layout of Idefics2ForConditionalGeneration; pictures are looked at whole (no split into quarters)."""

    looks_for = "config.json with model_type idefics2"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "perceiver_config.hidden_size": "the tensors tell",
        "*.attention_dropout": "of training",
        "image_token_id": "an id in a prompt, where images are put without it",
        "tie_word_embeddings": "the tensors tell",
        "transformers_version": "read for the rounding of positions",
    }

    def recognises(self, folder: Folder) -> bool:
        return folder.config.get("model_type") == "idefics2"

    def read(self, folder: Folder) -> Original:
        size = preprocessor(folder).get("size", {})
        bounds = {key: size[key] for key in ("longest_edge", "shortest_edge") if key in size}
        return Original({**folder.config, **({BOUNDS: bounds} if bounds else {})}, dict(folder.tensors))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        vision, text, perceiver = (config[f"{part}_config"] for part in ("vision", "text", "perceiver"))
        bounds = config.get(BOUNDS, {})
        for part in (text, perceiver):
            if part.get("hidden_act", "silu") != "silu":
                raise CheckpointError(f"hidden_act is {part['hidden_act']!r}; only 'silu' is known")
        language = causal_config(text, text.get("model_type", "mistral"))
        return {
            "views": {
                "type": "bounded",
                "longest": bounds.get("longest_edge", 980),
                "shortest": bounds.get("shortest_edge", 378),
                "patch": vision.get("patch_size", 32),
            },
            "encoder": {
                "type": "siglip_native",
                "config": plain_config(
                    {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, **_plain(vision)},
                    "siglip_vision_model",
                ),
                "layer": -1,
                "final_norm": True,
                "margin": _margin(config),
            },
            "connector": {
                "type": "idefics2_resampler",
                "latents": perceiver.get("resampler_n_latents", 64),
                "depth": perceiver.get("resampler_depth", 3),
                "heads": perceiver.get("resampler_n_heads", 16),
                "key_heads": perceiver.get("num_key_value_heads", 4),
                "head_width": perceiver.get("resampler_head_dim", 96),
                "hidden": text.get("intermediate_size", 14336),
                "epsilon": perceiver.get("rms_norm_eps", 1e-6),
            },
            "language": language,
        }

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config)
        theirs, ours = f"{PERCEIVER}layers.{{n}}.", "connector.layers.{n}."
        return NameMap(
            *tower_rules(spec["encoder"], TOWER),
            *[
                Rule(f"{PROJECTION}{each}_proj.weight", f"connector.input.{each}.weight")
                for each in ("gate", "up", "down")
            ],
            *[Rule(f"{theirs}{a}.weight", f"{ours}{b}.weight") for a, b in LAYER],
            Rule(f"{PERCEIVER}latents", "connector.latents"),
            Rule(f"{PERCEIVER}norm.weight", "connector.norm.weight"),
            Unused("model.text_model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("model.text_model.{rest...}", "language.inner.model.{rest...}"),
            Rule("lm_head.weight", "language.inner.lm_head.weight"),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder)

    def write(self, original: Original, folder: Path) -> None:
        config = {key: value for key, value in original.config.items() if key != BOUNDS}
        super().write(Original(config, original.tensors), folder)


def _margin(config: Mapping[str, Any]) -> float:
    """transformers 4.5x rounds positions otherwise than the versions before and behind it."""
    return 1e-6 if str(config.get("transformers_version", "")).startswith("4.5") else 0.0


def _plain(vision: Mapping[str, Any]) -> dict[str, Any]:
    """The tower's config as SigLIP's."""
    return {key: vision[key] for key in SIGLIP if key in vision}


@replays("perceiver_resampler", "Idefics2ForConditionalGeneration")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Pictures are padded with zeros to one size; those of zeros alone are left out."""
    inputs = case.inputs
    bounds = {"longest_edge": 1 << 14, "shortest_edge": 1}
    version = case.record["reference"].get("commit", "").removeprefix("v")
    config = {"transformers_version": version, **case.config, BOUNDS: bounds}
    model = load(find_family("idefics2"), Original(config, case.tensors)).model
    real = inputs.get("pixel_attention_mask", torch.ones_like(inputs["pixel_values"][:, :, 0])).bool()
    images: list[CasePicture] = []
    for pixels, mask in zip(inputs["pixel_values"].flatten(0, 1), real.flatten(0, 1), strict=True):
        if not bool((pixels != 0).any()):
            continue
        size = Size(*(_whole(mask.any(axis), model.encoder.patch_size[0]) for axis in (1, 0)))
        tile = unnormalised(model.encoder, pixels[None, :, : size.height, : size.width])
        images.append(CasePicture(f"{len(images)}", size, tile))
    features = [model.encode(picture.tiles) for picture in images]
    mask = inputs["attention_mask"].bool()
    image, remaining = case.config.get("image_token_id", 32001), list(images)
    documents = [
        case_document(model, ids[attended], remaining, image, repeated=True)
        for ids, attended in zip(inputs["input_ids"], mask, strict=True)
    ]
    return {
        "connector": torch.cat([model.connector(each) for each in features]),
        "logits": scattered(read_documents(model, documents).logits, mask),
    }


def _whole(real: Tensor, patch: int) -> int:
    """Pixels of the patches that hold a real one, as far as whole patches go."""
    count = int(real.sum())
    return min(-(-count // patch), len(real) // patch) * patch
