"""LLaVA-1.5 and LLaVA-NeXT in transformers' layout."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chiasm.encoders.preprocessor import OPENAI
from chiasm.errors import CheckpointError, excerpt
from chiasm.interop.config import EVERYWHERE, known_value
from chiasm.interop.convert import load
from chiasm.interop.families.llava import VICUNA
from chiasm.interop.family import Family, Folder, Original, find_family
from chiasm.interop.mapping import NameMap, Rule, Unsqueeze, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, read_documents, scattered, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.activations import activation_name, their_activation
from chiasm.interop.shapes.llava_processor import add_image_token, close_tower, write_processor
from chiasm.interop.shapes.towers import (
    causal_config,
    colour,
    normalisation,
    preprocessor,
    tower,
    tower_rules,
)
from chiasm.views import Size

CLASSES = {"llava": "LlavaForConditionalGeneration", "llava_next": "LlavaNextForConditionalGeneration"}
VIEWS = "picture_views"  # not in the original's config: how its preprocessor makes a picture square
DECIMALS = 7  # transformers' rounding of an unpadded side, before it is cut to whole tokens


class LlavaTransformers(Family, name="llava-hf"):
    """The layout of LlavaForConditionalGeneration and LlavaNextForConditionalGeneration (llava-hf on the hub).

    transformers 5 writes CLIP's tensors without the `vision_model.` that stands in older checkpoints. Trainers that
    save the modules' own names have `model.` before all but `lm_head`.
    """

    looks_for = "config.json with model_type llava or llava_next, a text_config and a vision_config"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "image_token_index": "an id in a prompt, where images are put without it",
        "image_token_id": "an id in a prompt, where images are put without it",
        "ignore_index": "of labels in training",
        "pad_token_id": "of padding",
        "image_seq_length": "counts of tokens follow from the parts",
        "tie_word_embeddings": "the tensors tell",
        "vocab_size": "the text_config's is used",
        "hidden_size": "the tensors tell",
    }

    def recognises(self, folder: Folder) -> bool:
        config = folder.config
        return config.get("model_type") in CLASSES and {"text_config", "vision_config"} <= config.keys()

    def read(self, folder: Folder) -> Original:
        settings = preprocessor(folder)
        _check_canvases(folder, settings.get("image_grid_pinpoints"))
        fit: dict[str, Any] = {}
        if settings.get("do_pad"):
            fit = {"fit": "pad", "padding": colour(settings.get("image_mean", OPENAI[0]))}
        elif "do_center_crop" in settings:
            fit = {"fit": "crop" if settings["do_center_crop"] else "stretch"}
        return Original({**folder.config, **({VIEWS: fit} if fit else {})}, dict(folder.tensors))

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        vision, text = config["vision_config"], config["text_config"]
        size = vision.get("image_size", 224)
        known_value("use_image_newline_parameter", config.get("use_image_newline_parameter", True), True)
        classless = "siglip" in vision.get("model_type", "clip_vision_model")
        views: dict[str, Any] = {"type": "whole", "size": size, "fit": "stretch" if classless else "crop"}
        views |= config.get(VIEWS, {})
        if _is_next(config):
            points = [tuple(point) for point in config["image_grid_pinpoints"]]
            views = {"type": "any_resolution", "size": size, "resolutions": points, "decimals": DECIMALS}
        return {
            "views": views,
            "encoder": tower(
                vision,
                "clip_vision_model",
                layer=config.get("vision_feature_layer", -2),
                class_token="first" if _keeps_class(config) else "drop",
            ),
            "connector": {
                "type": "mlp",
                "depth": 2,
                "bias": config.get("multimodal_projector_bias", True),
                "activation": activation_name(config.get("projector_hidden_act", "gelu")),
            },
            "language": causal_config(text, text.get("model_type", "llama")),
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config)
        m = "model." if any(key.startswith("model.multi_modal_projector.") for key in keys) else ""
        nested = not keys or any(key.startswith(f"{m}vision_tower.vision_model.") for key in keys)
        trunk, inner = ("model.language_model.", "model.") if m else ("language_model.", "")
        return NameMap(
            *tower_rules(spec["encoder"], f"{m}vision_tower.{'vision_model.' if nested else ''}"),
            Rule(f"{m}multi_modal_projector.linear_1.{{p}}", "connector.layers.0.{p}"),
            Rule(f"{m}multi_modal_projector.linear_2.{{p}}", "connector.layers.2.{p}"),
            Rule(f"{m}image_newline", "views.markers", Unsqueeze()),
            Unused("language_model.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            *([Rule("lm_head.weight", "language.inner.lm_head.weight")] if m else []),
            Rule(f"{trunk}{{rest...}}", f"language.inner.{inner}{{rest...}}"),
        )

    def config(self, model: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        views, encoder, connector = model["views"], model["encoder"], model["connector"]
        if encoder["type"] != "transformers" or connector["type"] != "mlp" or connector["depth"] != 2:
            raise CheckpointError(
                "'llava-hf' needs the encoder 'transformers' and the connector 'mlp' of depth 2"
            )
        if encoder["final_norm"] or encoder["class_token"] == "join":
            raise CheckpointError(
                "'llava-hf' takes an encoder's features without final_norm and joined class token"
            )
        whole = views["type"] == "whole"
        if not whole and (views["type"] != "any_resolution" or views["arrangement"] != "unpadded"):
            raise CheckpointError(
                "'llava-hf' needs the views 'whole', or 'any_resolution' with its tiles unpadded"
            )
        if not whole and views["fit"] != "stretch":
            raise CheckpointError("'llava-hf' stretches the whole image beside the tiles")
        full = encoder["class_token"] == "first" or "siglip" in encoder["config"]["model_type"]
        kind = "llava" if whole else "llava_next"
        exported = {
            "architectures": [CLASSES[kind]],
            "model_type": kind,
            "vision_feature_layer": encoder["layer"],
            "vision_feature_select_strategy": "full" if full else "default",
            "projector_hidden_act": their_activation(connector["activation"]),
            "multimodal_projector_bias": connector["bias"],
            "image_token_index": 0,
            "vision_config": encoder["config"],
            "text_config": model["language"]["config"],
            "tie_word_embeddings": model["language"]["config"].get("tie_word_embeddings", False),
        }
        return (
            exported
            if whole
            else exported | {"image_grid_pinpoints": [list(each) for each in views["resolutions"]]}
        )

    def complete(
        self,
        original: Original,
        model: Mapping[str, Mapping[str, Any]],
        ours: Mapping[str, Tensor],
        folder: Path,
    ) -> None:
        close_tower(original)
        add_image_token(original, folder)
        write_processor(original.config, model, ours, folder)

    def write(self, original: Original, folder: Path) -> None:
        config = {key: value for key, value in original.config.items() if key != VIEWS}
        super().write(Original(config, original.tensors), folder)

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder)

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return VICUNA if config["text_config"].get("model_type", "llama") == "llama" else None


def _is_next(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "llava_next" or "image_grid_pinpoints" in config


def _check_canvases(folder: Folder, canvases: Any) -> None:
    """Raise CheckpointError where images are cut for other canvases than the model counts tokens of."""
    own = folder.config.get("image_grid_pinpoints")
    if canvases is not None and own is not None and canvases != own:
        raise CheckpointError(
            f"{folder.path}: its preprocessor's image_grid_pinpoints are {excerpt(canvases)}, but config.json's "
            f"are {excerpt(own)}; tiles are cut by the one and counted by the other"
        )


def _keeps_class(config: Mapping[str, Any]) -> bool:
    """Whether the class token is read with the patches; raises CheckpointError for what no tower can give."""
    strategy = config.get("vision_feature_select_strategy", "default")
    if strategy not in ("default", "full"):
        raise CheckpointError(f"vision_feature_select_strategy is {strategy!r}; known: default, full")
    classless = "siglip" in config["vision_config"].get("model_type", "clip_vision_model")
    if classless and strategy == "default":
        raise CheckpointError(
            "vision_feature_select_strategy is 'default', which takes away a class token, but SigLIP has none; "
            "it would be 'full'"
        )
    if _is_next(config) and strategy == "full" and not classless:
        raise CheckpointError(
            "vision_feature_select_strategy is 'full', but tiles with a class token make no mosaic; "
            "it would be 'default'"
        )
    return strategy == "full" and not classless


@replays("llava", *CLASSES.values())
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The image id stands at each visual token; rows are padded on either side."""
    inputs = case.inputs
    model = load(find_family("llava-hf"), Original(case.config, case.tensors)).model
    pixels = inputs["pixel_values"]
    tiles = pixels if pixels.ndim == 5 else pixels[:, None]
    sizes = inputs.get("image_sizes", torch.tensor([pixels.shape[-2:]] * len(pixels))).tolist()
    images = [
        CasePicture(f"{i}", Size(*size), unnormalised(model.encoder, each))
        for i, (each, size) in enumerate(zip(tiles, sizes, strict=True))
    ]
    mask = inputs["attention_mask"].bool()
    image = case.config["image_token_index" if "image_token_index" in case.config else "image_token_id"]
    documents = [
        case_document(model, row[real], images, image, repeated=True)
        for row, real in zip(inputs["input_ids"], mask, strict=True)
    ]
    read = read_documents(model, documents)
    features = read.visual
    if math.prod(case.outputs["image_features"].shape) == features.numel():
        features = features.view(case.outputs["image_features"].shape)
    return {"image_features": features, "logits": scattered(read.logits, mask)}
