"""What the preprocessor of a vision model of transformers makes of pixels: a scale and a shift of each channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.errors import CheckpointError, excerpt, reason
from chiasm.storage import safe_json

Colours = tuple[tuple[float, float, float], tuple[float, float, float]]
# Mean and deviation.
HALF: Colours = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET: Colours = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI: Colours = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# For a folder without a preprocessor, by `model_type`; IMAGENET for all others (DINOv2, ViT-MAE, DeiT ...).
BY_MODEL = {
    "clip_vision_model": OPENAI,
    "siglip_vision_model": HALF,
    "siglip2_vision_model": HALF,
    "vit": HALF,
}
# Where the file does not say: by `image_processor_type` without its ending, as the classes of transformers do.
BY_PROCESSOR = {
    "Beit": HALF,
    "Bit": OPENAI,
    "Blip": OPENAI,
    "ChineseCLIP": OPENAI,
    "CLIP": OPENAI,
    "ConvNext": HALF,
    "DeiT": HALF,
    "DINOv3ViT": IMAGENET,
    "Donut": HALF,
    "DPT": HALF,
    "EfficientNet": HALF,
    "Eomt": IMAGENET,
    "Levit": IMAGENET,
    "MobileNetV1": HALF,
    "MobileNetV2": HALF,
    "PoolFormer": IMAGENET,
    "Pvt": IMAGENET,
    "Segformer": IMAGENET,
    "Siglip": HALF,
    "Siglip2": HALF,
    "ViT": HALF,
}
BYTES = 255  # pixels are in [0, 1] here, and in bytes where the originals begin
# Keys that say which pixels a model is given, which is up to the views here, or that are not about pixels.
OF_VIEWS = frozenset({
    "_valid_processor_keys", "auto_map", "crop_pct", "crop_size", "crop_to_patches", "data_format",
    "default_to_square", "device", "disable_grouping", "do_align_long_axis", "do_center_crop", "do_convert_rgb",
    "do_image_splitting", "do_pad", "do_reduce_labels", "do_resize", "do_split_image", "do_thumbnail",
    "ensure_multiple_of", "feature_extractor_type", "ignore_index", "image_grid_pinpoints", "image_processor_type",
    "input_data_format", "keep_aspect_ratio", "max_image_size", "max_num_patches", "max_patches", "max_pixels",
    "merge_size", "min_patches", "min_pixels", "num_labels", "pad_size", "patch_size", "processor_class",
    "reduce_labels", "resample", "return_tensors", "size", "size_divisibility", "size_divisor",
    "temporal_patch_size",
})  # fmt: skip
USED = frozenset({
    "do_flip_channel_order", "do_normalize", "do_rescale", "image_mean", "image_std", "include_top",
    "rescale_factor", "rescale_offset",
})  # fmt: skip


@dataclass(frozen=True)
class Preprocessor:
    """Pixels in [0, 1] become (pixels - mean) / deviation, and then blue comes first where `flips`."""

    mean: Float[Tensor, "3 1 1"]
    deviation: Float[Tensor, "3 1 1"]
    flips: bool = False


def read_preprocessor(folder: Path | None, model_type: str) -> Preprocessor:
    """What the files of a folder say; where there are none, what the family is usually given.

    Raises CheckpointError for a file that does not say it, or says more than is understood here.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = folder / name if folder is not None else None
        if file is None or not file.is_file():
            continue
        try:
            config = safe_json.parse_object(file.read_text(encoding="utf-8"))
            is_preprocessor = name == "preprocessor_config.json" or "image_processor" in config
            config = config.get("image_processor", config)
            if not isinstance(config, dict):
                raise ValueError(f"its image_processor is {excerpt(config)}; it must be an object")
            if is_preprocessor or config.keys() & USED:
                return _understood({key: value for key, value in config.items() if value is not None})
        except CheckpointError as error:
            raise CheckpointError(f"{file}: {error}") from None
        except (OSError, ValueError, AttributeError, TypeError, ArithmeticError) as error:
            raise CheckpointError(f"{file} does not say how images are prepared: {reason(error)}") from None
    mean, deviation = BY_MODEL.get(model_type, IMAGENET)
    return Preprocessor(_channels(mean), _channels(deviation))


def _understood(config: Mapping[str, Any]) -> Preprocessor:
    unknown = sorted(config.keys() - USED - OF_VIEWS)
    if unknown:
        raise CheckpointError(
            f"{', '.join(map(repr, unknown))} might change pixels in a way that is not known here; take out what "
            "does not"
        )
    kind = _kind(config)
    scale, offset = _rescaling(config, kind)
    mean, deviation = _normalisation(config, kind)
    flips = _flag(config, "do_flip_channel_order", kind == "MobileViT")
    return Preprocessor((mean + offset) / scale, deviation / scale, flips)


def _kind(config: Mapping[str, Any]) -> str:
    """The family of the image processor's class; '' where the file does not name one."""
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(ending)
    return name


def _rescaling(config: Mapping[str, Any], kind: str) -> tuple[float, float]:
    """What pixels in [0, 1] are multiplied with, and what is then subtracted."""
    offset = _of_efficientnet(config, kind, "rescale_offset", False)
    if not _flag(config, "do_rescale", True):
        return BYTES, 0.0
    scale = float(config.get("rescale_factor", 1 / BYTES)) * BYTES
    if not 0 < scale < float("inf"):
        raise CheckpointError(f"rescale_factor is {config['rescale_factor']!r}, but must be greater than 0")
    return scale, float(offset)


def _normalisation(config: Mapping[str, Any], kind: str) -> tuple[Tensor, Tensor]:
    """What is subtracted from rescaled pixels, and what they are then divided by."""
    again = _of_efficientnet(config, kind, "include_top", True)
    normalises = (
        _flag(config, "do_normalize", True) and kind != "MobileViT"
    )  # whose class has no normalisation
    mean, deviation = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    if normalises:
        mean, deviation = _colours(config, kind, "image_mean", 0), _colours(config, kind, "image_std", 1)
    if again:
        deviation = deviation * _colours(config, kind, "image_std", 1)
    if not bool(torch.isfinite(mean).all() and torch.isfinite(deviation).all() and (deviation > 0).all()):
        raise CheckpointError("image_mean and image_std must be numbers, and image_std greater than 0")
    return mean, deviation


def _colours(config: Mapping[str, Any], kind: str, key: str, place: int) -> Float[Tensor, "3 1 1"]:
    if key not in config and kind not in BY_PROCESSOR:
        raise CheckpointError(
            f"it has no {key}, and what {kind or 'an image processor without a name'} takes then is not known here"
        )
    return _channels(config[key] if key in config else BY_PROCESSOR[kind][place])


def _of_efficientnet(config: Mapping[str, Any], kind: str, key: str, default: bool) -> bool:
    """An option that no other image processor has."""
    value = _flag(config, key, default and kind == "EfficientNet")
    if value and kind != "EfficientNet":
        raise CheckpointError(f"{key} is true, which is known of EfficientNetImageProcessor alone")
    return value


def _channels(values: Any) -> Float[Tensor, "3 1 1"]:
    red, green, blue = map(float, values)
    return torch.tensor([red, green, blue]).view(3, 1, 1)


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"{key} is {value!r}, but must be true or false")
    return value
