"""What transformers' processors of LLaVA need in addition to a model: an image's token, and image preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.family import Original
from chiasm.interop.shapes.towers import colour, settings
from chiasm.storage.folders import write_json

IMAGE = "<image>"
TABLES = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "lm_head.weight", "embed_out.weight")
BICUBIC = 3  # PIL's number


def close_tower(original: Original) -> None:
    """End the tower at the layer whose features are read, and add the final norm, which no feature passes.

    The later blocks are not in a model of Chiasm; transformers would draw them at random.
    """
    vision, layer = original.config["vision_config"], original.config["vision_feature_layer"]
    depth = settings(vision).num_hidden_layers
    layers = [
        each if each >= 0 else depth + 1 + each for each in ([layer] if isinstance(layer, int) else layer)
    ]
    original.config = {
        **original.config,
        "vision_config": {**vision, "num_hidden_layers": max(layers)},
        "vision_feature_layer": -1 if isinstance(layer, int) else layers,
    }
    table = "embeddings.position_embedding.weight"
    names = [each for each in original.tensors if each.startswith("vision_tower.") and each.endswith(table)]
    if not names:
        raise CheckpointError(f"there is no tensor vision_tower.*.{table}, by which the width is known")
    name = names[0]
    position = original.tensors[name][0]
    norm = f"{name.removesuffix(table)}post_layernorm."
    original.tensors |= {
        f"{norm}weight": torch.ones_like(position),
        f"{norm}bias": torch.zeros_like(position),
    }


def add_image_token(original: Original, folder: Path) -> None:
    """Give the tokenizer in `folder` the token of an image, where it has none, and the model a row for it.

    The new row is the mean of the others, so that no answer changes.
    """
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if IMAGE not in words.get_vocab():
        words.add_special_tokens({"extra_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    words.save_pretrained(folder)
    place = words.get_vocab()[IMAGE]
    text = original.config["text_config"]
    rows = max(text["vocab_size"], place + 1)
    for name, table in original.tensors.items():
        if name.endswith(TABLES) and len(table) == text["vocab_size"] < rows:
            new = table.float().mean(0, keepdim=True).to(table.dtype).expand(rows - len(table), -1)
            original.tensors[name] = torch.cat([table, new])
    original.config = {
        **original.config,
        "image_token_index": place,
        "text_config": {**text, "vocab_size": rows},
    }


def write_processor(
    config: Mapping[str, Any],
    model: Mapping[str, Mapping[str, Any]],
    ours: Mapping[str, Tensor],
    folder: Path,
) -> None:
    """Write preprocessor_config.json, processor_config.json and generation_config.json.

    Raises CheckpointError for a padding that the processor has not.
    """
    views, vision = model["views"], config["vision_config"]
    side, tiles = views["size"], views["type"] != "whole"
    fit = "crop" if tiles else views["fit"]
    prepared: dict[str, Any] = {
        "image_processor_type": "LlavaNextImageProcessor" if tiles else "CLIPImageProcessor",
        "processor_class": "LlavaNextProcessor" if tiles else "LlavaProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side} if fit == "stretch" else {"shortest_edge": side},
        "resample": BICUBIC,
        "do_center_crop": fit == "crop",
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": ours["encoder.mean"].flatten().tolist(),
        "image_std": ours["encoder.deviation"].flatten().tolist(),
    }
    if tiles:
        prepared["image_grid_pinpoints"] = config["image_grid_pinpoints"]
    if fit == "pad":
        mean_colour = colour(prepared["image_mean"])
        if list(views["padding"]) != mean_colour:
            raise CheckpointError(
                f"views.padding is {list(views['padding'])}, but transformers' LlavaImageProcessor pads with the "
                f"colour of the encoder's mean; a model trained with views.padding = {mean_colour} can be exported"
            )
        prepared |= {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
    classless = "siglip" in vision["model_type"]
    processor = {
        "processor_class": prepared["processor_class"],
        "image_token": IMAGE,
        "patch_size": vision["patch_size"],
        "vision_feature_select_strategy": config["vision_feature_select_strategy"],
        "num_additional_image_tokens": 0 if classless else 1,
    }
    write_json(folder / "preprocessor_config.json", prepared)
    write_json(folder / "processor_config.json", processor)
    text = config["text_config"]
    ids = {
        key: text[key]
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        if text.get(key) is not None
    }
    write_json(folder / "generation_config.json", ids)
