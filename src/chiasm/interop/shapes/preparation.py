"""A folder's image preprocessing compared with that of the views and the encoder: equal, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chiasm import parts
from chiasm.errors import CheckpointError, excerpt
from chiasm.interop.config import Config, refuse_unread
from chiasm.interop.family import WRONG_FORM, Folder
from chiasm.interop.shapes.image_sizes import check_sizes
from chiasm.interop.shapes.towers import is_number, normalisation, preprocessor

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
    "image_grid_pinpoints": "compared with the config's where transformers cuts by it; else the config's is used",
    "chat_template": "read with the tokenizer",
    "tokenizer": "read with the tokenizer",
    "tokenizer_class": "read with the tokenizer",
    "max_length": "of texts",
    "crop_pct": "of classifiers",
    "num_frames": "of videos",
    "aspect_ratio_setting": "the config's is used",
    "norm_mean": "taken over by the encoder",
    "norm_std": "taken over by the encoder",
    "image_feature_size": "counts of tokens follow from the parts",
    "unk": "a placeholder in a prompt",
    "use_image_id": "the config's is used",
    "version": "the config's is used",
    **{
        f"{place}_{end}": "taken over by the views"
        for place in ("im", "slice", "im_id")
        for end in ("start", "end")
    },
}
BICUBIC = 3  # PIL's number
COLOUR_STEPS = 255
PADDED = ("letterbox", "native")  # views that are always filled up
# Views that cut an image by a rule of their own, whatever form the preprocessor gives it.
TILED = ("ratio_tiles", "slices", "uhd_slices", "anchors")


def check_preprocessor(folder: Folder, model: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise CheckpointError for what a folder's preprocessor does to images and the model's parts do not.

    model: the recipe's `model` section, whose views and encoder a family has made by its config.
    """
    if "views" not in model:
        return
    prepared, views = preprocessor(folder), parts.check("views", model["views"], "model.views")
    where = f"{folder.path}: its preprocessor"
    try:
        config = Config(prepared)
        _check(config, views)
        check_sizes(config, views, model.get("encoder", {}))
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    except WRONG_FORM as error:
        raise CheckpointError(f"{where} is of no form that is known: {error}") from None
    refuse_unread(config, WITHOUT_EFFECT, where, "Chiasm")


def check_colours(folder: Folder, encoder: object) -> None:
    """Raise CheckpointError where the preprocessor normalises pixels otherwise than an encoder that was built."""
    normalised = normalisation(folder)
    for name, key in (("mean", "image_mean"), ("deviation", "image_std")):
        if not normalised or not hasattr(encoder, name):
            continue
        own = torch.as_tensor(getattr(encoder, name)).flatten().expand(3)
        effective = normalised[f"encoder.{name}"].flatten()
        if not torch.allclose(own, effective, atol=1e-4):
            raise CheckpointError(
                f"{folder.path}: its preprocessor's {key} is {_listed(effective)} in effect, but images of this "
                f"family are normalised by {_listed(own)}"
            )


def _listed(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _check(config: Config, views: Mapping[str, Any]) -> None:
    for key in ("do_resize", "do_rescale"):
        config.only(key, True, None, default=True)
    config.only("do_normalize", True, False, None)  # False: the encoder neither subtracts nor divides
    for mean, deviation in (("image_mean", "image_std"), ("high_res_image_mean", "high_res_image_std")):
        if (config.get(mean) is None) != (config.get(deviation) is None):
            raise CheckpointError(f"{mean} and {deviation} belong together, but one of them is missing")
    factor = config.get("rescale_factor")
    if factor is not None and not (is_number(factor) and abs(factor * COLOUR_STEPS - 1) <= 1e-3):
        raise CheckpointError(
            f"rescale_factor is {excerpt(factor)}, but pixels are known as divided by 255 only"
        )
    for key in ("resample", "high_res_resample"):
        config.only(key, BICUBIC, None, default=None)
    config.only("min_size", views["shortest"] if views["type"] == "letterbox" else 14, None, default=None)
    config.only("do_image_splitting", False, None, default=None)
    _check_tiles(config, views)
    _check_fit(config, views)
    _check_padding(config, views)


def _check_tiles(config: Config, views: Mapping[str, Any]) -> None:
    """How many tiles InternVL's processor makes, whatever its `crop_to_patches` is, or slices MiniCPM-V's."""
    tiles = views["type"] == "ratio_tiles"
    config.only("crop_to_patches", False, None, *([True] if tiles else []), default=None)
    for key, option in (("min_patches", "fewest"), ("max_patches", "tiles")):
        if tiles:
            config.only(key, views[option], None, default=None)
    if views["type"] == "slices":
        config.only("max_slice_nums", views["slices"], None, default=None)
        config.only("scale_resolution", views["size"], None, default=None)
        config.only("slice_mode", True, None, default=None)


def _check_fit(config: Config, views: Mapping[str, Any]) -> None:
    """How images come into the form of a view: cropped, padded, or neither."""
    crops, pads = (config.only(key, None, True, False) for key in ("do_center_crop", "do_pad"))
    if views.get("resolutions") or views["type"] in TILED:
        return  # tiles are square, so that nothing is cropped, and what is padded is a batch
    if "fit" in views:
        if not pads and crops is not None and crops != (views["fit"] == "crop"):
            raise CheckpointError(
                f"do_center_crop is {crops}, but images of this family are made square otherwise"
            )
        if pads and views["fit"] != "pad":
            raise CheckpointError("do_pad is true, but images of this family are made square otherwise")
        return
    if crops:
        raise CheckpointError("do_center_crop is true, but images of this family are looked at whole")
    if pads is False and views["type"] in PADDED:
        raise CheckpointError("do_pad is false, but images of this family are padded")


def _check_padding(config: Config, views: Mapping[str, Any]) -> None:
    """The colour that images are padded with, where they are."""
    keys = ("high_res_background_color", "background_color")
    colours = [config.get(key) for key in keys]  # both read: the smaller image is made of the larger, padded
    key, colour = next(((k, c) for k, c in zip(keys, colours, strict=True) if c is not None), ("", None))
    if views["type"] == "native":
        config.only("padding_value", 1.0, None)
        config.only("padding_mode", "constant", None)
    if colour is None or "padding" not in views or views.get("fit", "pad") != "pad":
        return
    if not isinstance(colour, list) or colour != list(views["padding"]):
        raise CheckpointError(
            f"{key} is {excerpt(colour)}, but images are padded with {list(views['padding'])}"
        )
