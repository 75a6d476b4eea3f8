"""InternVL in transformers' layout: InternVL2.5-, InternVL3-...-hf on the hub."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.convert import load
from chiasm.interop.families.internvl import BEGIN, END, as_tiles, shuffle_factor
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.activations import activation_name
from chiasm.interop.shapes.intern_vit import check_norms, unused_layers
from chiasm.interop.shapes.towers import causal_config, normalisation, preprocessor, tower
from chiasm.views import Size

TILES = "image_tiles"  # not in the original's config: how many tiles its preprocessor makes
MARKERS = "image_markers"  # likewise: the tokens round an image, of its tokenizer
PROJECTOR = {"layer_norm": "norm", "linear_1": "layers.0", "linear_2": "layers.2"}


class InternVLTransformers(Family, name="internvl-hf"):
    """The layout of InternVLForConditionalGeneration, in the names of the hub or of transformers' modules.

    Its processor cuts images into tiles whatever `crop_to_patches` of the preprocessor is.
    """

    looks_for = "config.json with model_type internvl, a text_config and a vision_config"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "image_token_id": "an id in a prompt, where images are put without it",
        "image_seq_length": "counts of tokens follow from the parts",
        "tie_word_embeddings": "the tensors tell",
    }

    def recognises(self, folder: Folder) -> bool:
        config = folder.config
        return config.get("model_type") == "internvl" and {"text_config", "vision_config"} <= config.keys()

    def read(self, folder: Folder) -> Original:
        prepared, words = preprocessor(folder), folder.json("tokenizer_config.json")
        tiles = {key: prepared[key] for key in ("min_patches", "max_patches") if prepared.get(key)}
        markers = [words.get("start_image_token", BEGIN), words.get("end_image_token", END)]
        return Original({**folder.config, TILES: tiles, MARKERS: markers}, dict(folder.tensors))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        text, tiles = config["text_config"], config.get(TILES, {})
        begin, end = config.get(MARKERS, (BEGIN, END))
        known_value(
            "vision_feature_select_strategy",
            config.get("vision_feature_select_strategy", "default"),
            "default",
        )
        language = causal_config(text, text.get("model_type", "qwen2"))
        if keys and not any(key.endswith("lm_head.weight") for key in keys):
            language["config"]["tie_word_embeddings"] = True
        return {
            "views": {
                "type": "ratio_tiles",
                "size": _side(config["vision_config"].get("image_size", 448)),
                "tiles": tiles.get("max_patches", 12),
                "fewest": tiles.get("min_patches", 1),
            },
            "encoder": _encoder(config["vision_config"], config.get("vision_feature_layer", -1)),
            "connector": {
                "type": "pixel_shuffle",
                "factor": shuffle_factor(config.get("downsample_ratio", 0.5)),
                "activation": activation_name(config.get("projector_hidden_act", "gelu")),
            },
            "language": {**language, "read_marker": begin, "read_end": end},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        encoder = self.model(config)["encoder"]
        nested = any(key.startswith("model.multi_modal_projector.") for key in keys)
        m, vision = ("model.", "model.vision_tower.") if nested else ("", "vision_tower.")
        head = [Rule("lm_head.weight", "language.inner.lm_head.weight")] if nested else []
        trunk, inner = ("model.language_model.", "model.") if nested else ("language_model.", "")
        norm = f"{vision}layernorm.{{p}}"
        return NameMap(
            *unused_layers(encoder, f"{vision}encoder.layer."),
            Rule(norm, "encoder.final_norm.{p}") if encoder.get("final_norm") else Unused(norm),
            Rule(f"{vision}{{rest...}}", "encoder.model.{rest...}"),
            *[
                Rule(f"{m}multi_modal_projector.{name}.{{p}}", f"connector.{ours}.{{p}}")
                for name, ours in PROJECTOR.items()
            ],
            *head,
            Rule(f"{trunk}{{rest...}}", f"language.inner.{inner}{{rest...}}"),
            OwnTensors("encoder.mean"),
            OwnTensors("encoder.deviation"),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder)

    def write(self, original: Original, folder: Path) -> None:
        super().write(original.without(TILES).without(MARKERS), folder)


def _encoder(vision: Mapping[str, Any], layer: Any) -> dict[str, Any]:
    if not isinstance(layer, int):
        raise CheckpointError(f"vision_feature_layer is {layer!r}; the features of one layer alone are known")
    check_norms(vision.get("use_qk_norm", False), vision.get("layer_norm_eps", 1e-6))
    # Where the class token is pooled, the last hidden state is normed.
    normed = layer == -1 and not vision.get("use_mean_pooling", True)
    return tower(vision, "internvl_vision", layer=layer, final_norm=normed)


def _side(size: Any) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise CheckpointError(f"vision_config.image_size is {size!r}, but tiles are square")
    return int(sides.pop())


@replays("internvl", "InternVLForConditionalGeneration")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The image id stands at each visual token of each tile; rows are padded on either side."""
    inputs = case.inputs
    model = load(find_family("internvl-hf"), Original(case.config, case.tensors)).model
    as_tiles(model)
    pixels = unnormalised(model.encoder, inputs["pixel_values"])
    tiles = [CasePicture(f"{i}", Size(*tile.shape[-2:]), tile[None]) for i, tile in enumerate(pixels)]
    mask = inputs["attention_mask"].bool()
    documents = [
        case_document(model, row[real], tiles, case.config["image_token_id"], repeated=True)
        for row, real in zip(inputs["input_ids"], mask, strict=True)
    ]
    return {
        "image_features": model.connector(model.encoder(pixels)),
        "logits": scattered(read_documents(model, documents).logits, mask),
    }
