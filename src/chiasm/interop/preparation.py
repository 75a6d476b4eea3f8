"""What a folder says of how images are prepared, against what views and encoder do: equal, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError
from chiasm.interop.config import Config, refuse_unread
from chiasm.interop.family import Folder
from chiasm.interop.towers import normalisation, preprocessor

# Keys that do not reach the pixels of a model, with the reason.
WITHOUT_EFFECT = {
    "image_processor_type": "the family is recognised by its config",
    "feature_extractor_type": "the family is recognised by its config",
    "processor_class": "the family is recognised by its config",
    "auto_map": "code, which is never run",
    "_valid_processor_keys": "a list of the keys themselves",
    "do_convert_rgb": "images are RGB here",
    "data_format": "how arrays lie in memory",
    "input_data_format": "how arrays lie in memory",
    "return_tensors": "how arrays lie in memory",
    "device": "a machine's",
    "disable_grouping": "speed only",
    "default_to_square": "how a size of one number is meant; sizes are compared with the config's",
    "image_mean": "taken over by the encoder, or compared with its own",
    "image_std": "taken over by the encoder, or compared with its own",
    "high_res_image_mean": "taken over by the encoder",
    "high_res_image_std": "taken over by the encoder",
    "image_token": "the name of a place in a prompt, which is put there without it",
    "num_additional_image_tokens": "counts of tokens follow from the parts",
    "num_query_tokens": "counts of tokens follow from the parts",
    "image_seq_length": "counts of tokens follow from the parts",
    "image_seq_len": "counts of tokens follow from the parts",
    "patch_size": "the config's is used",
    "vision_feature_select_strategy": "the config's is used",
    "image_grid_pinpoints": "the config's is used",
    "chat_template": "read with the tokenizer",
    "tokenizer": "read with the tokenizer",
    "tokenizer_class": "read with the tokenizer",
    "max_length": "of texts",
    "crop_pct": "of classifiers",
    "num_frames": "of videos",
    "aspect_ratio_setting": "the config's is used",
}
BICUBIC = 3  # PIL's number
COLOUR_STEPS = 255


def check_preprocessor(folder: Folder, model: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise CheckpointError for what a folder's preprocessor does to images and the model's parts do not.

    model: the recipe's `model` section, whose views and encoder a family has made by its config.
    """
    if "views" not in model:
        return
    config, views = Config(preprocessor(folder)), model["views"]
    where = f"{folder.path}: its preprocessor"
    try:
        _check(config, views)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    refuse_unread(config, WITHOUT_EFFECT, where, "Chiasm")


def check_colours(folder: Folder, encoder: object) -> None:
    """Raise CheckpointError where the preprocessor normalises pixels otherwise than an encoder that was built."""
    wanted = normalisation(folder)
    for name, key in (("mean", "image_mean"), ("deviation", "image_std")):
        if not wanted or not hasattr(encoder, name):
            continue
        own = torch.as_tensor(getattr(encoder, name)).flatten().expand(3)
        given = wanted[f"encoder.{name}"].flatten()
        if not torch.allclose(own, given, atol=1e-4):
            raise CheckpointError(
                f"{folder.path}: its preprocessor's {key} is {_listed(given)} in effect, but images of this "
                f"family are normalised by {_listed(own)}"
            )


def _listed(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _check(config: Config, views: Mapping[str, Any]) -> None:
    for key in ("do_resize", "do_rescale"):
        config.only(key, True, None, default=True)
    config.get("do_normalize")  # False: the encoder neither subtracts nor divides
    if (config.get("image_mean") is None) != (config.get("image_std") is None):
        raise CheckpointError("image_mean and image_std belong together, but one of them is missing")
    factor = config.get("rescale_factor")
    if factor is not None and abs(factor * COLOUR_STEPS - 1) > 1e-3:
        raise CheckpointError(f"rescale_factor is {factor!r}, but pixels are known as divided by 255 only")
    config.only("resample", BICUBIC, None, default=None)
    config.only("min_size", views.get("shortest", 14), None, default=None)
    config.only("do_image_splitting", False, None, default=None)
    crop, pads, whole = config.get("do_center_crop"), config.get("do_pad"), views["type"] == "whole"
    if whole and not pads and crop is not None and crop != (views["fit"] == "crop"):
        raise CheckpointError(
            f"do_center_crop is {crop}, but images of this family are made square otherwise"
        )
    if whole and pads and views["fit"] != "pad":
        raise CheckpointError("do_pad is true, but images of this family are made square otherwise")
    background, padding = config.get("background_color"), views.get("padding")
    if background is not None and padding is not None and list(background) != list(padding):
        raise CheckpointError(f"background_color is {background}, but images are padded with {list(padding)}")
    for key in ("size", "crop_size", "image_size", "high_res_size", "pad_size"):
        _check_size(key, config.get(key), views)


def _check_size(key: str, size: Any, views: Mapping[str, Any]) -> None:
    """Sizes have to be those of the views, where these have one."""
    wanted = views.get("size")
    sides = list(size.values()) if isinstance(size, Mapping) else [size]
    if size is None or wanted is None or key == "high_res_size" or isinstance(wanted, list | tuple):
        return
    known = {wanted, views.get("shortest"), views.get("longest")}
    if any(side is not None and side not in known for side in sides):
        raise CheckpointError(f"{key} is {size!r}, but the config makes images {wanted} pixels wide")
