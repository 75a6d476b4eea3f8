"""What families share: vision towers and language models of transformers, inside another layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeGuard

import torch
from torch import Tensor

from chiasm.errors import CheckpointError, RecipeError, excerpt
from chiasm.interop.config import known_value, plain
from chiasm.interop.family import Folder, Original
from chiasm.interop.mapping import OwnTensors, Rule, Unused
from chiasm.storage.transformers_config import as_options, build_config

# Fields that belong to a machine, a run or transformers' bookkeeping, not to the structure.
DROPPED = (
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "_attn_implementation",
)


LARGEST = 1e9  # that a mean, a deviation or a factor of pixels may be
# Fields that a type once had in transformers, and that never reached the features of images or the next word.
FORMER = (
    "activation_dropout",
    "dropout",
    "initializer_factor",
    "num_channels",
    "projection_dim",
    "vocab_size",
)


def tower(
    config: Mapping[str, Any],
    default: str,
    *,
    layer: int | list[int],
    final_norm: bool = False,
    class_token: str = "drop",
) -> dict[str, Any]:
    """The encoder `transformers` for a tower's config; `default` is its model_type where the config has none."""
    model_type = config.get("model_type", default)
    spec: dict[str, Any] = {
        "type": "transformers",
        "config": plain_config(config, model_type),
        "layer": layer,
    }
    spec |= {"class_token": class_token} if class_token != "drop" else {}
    return spec | ({"final_norm": True} if final_norm else {})


def tower_rules(
    encoder: Mapping[str, Any], prefix: str, slot: str = "encoder"
) -> list[Rule | Unused | OwnTensors]:
    """Rules for a CLIP or SigLIP tower whose tensors begin with `prefix`; layers after `layer` are unused."""
    depth, feature_layers = settings(encoder["config"]).num_hidden_layers, encoder["layer"]
    layers = [feature_layers] if isinstance(feature_layers, int) else feature_layers
    used_layers = max(layer if layer >= 0 else depth + 1 + layer for layer in layers)
    norm = f"{prefix}post_layernorm.{{p}}"
    return [
        *[Unused(f"{prefix}encoder.layers.{n}.{{rest...}}") for n in range(used_layers, depth)],
        Rule(norm, f"{slot}.final_norm.{{p}}") if encoder.get("final_norm") else Unused(norm),
        Unused(f"{prefix}embeddings.position_ids"),
        Unused(f"{prefix}head.{{rest...}}"),
        Rule(f"{prefix}{{rest...}}", f"{slot}.model.{{rest...}}"),
        OwnTensors(f"{slot}.mean"),
        OwnTensors(f"{slot}.deviation"),
    ]


def causal_config(config: Mapping[str, Any], default: str) -> dict[str, Any]:
    """The language model `causal` for a config of transformers; `default` is its model_type where it has none."""
    model_type = (
        config.get("model_type") if "model_type" in config and config["model_type"] == default else default
    )
    return {"type": "causal", "config": plain_config(config, model_type or default)}


def plain_config(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """A config of transformers as its differences from the defaults, with its model_type and vocabulary."""
    built = settings({**config, "model_type": model_type})
    changes = {key: value for key, value in as_options(built).items() if key not in DROPPED}
    vocabulary = {"vocab_size": built.vocab_size} if hasattr(built, "vocab_size") else {}
    return {**changes, **vocabulary, "model_type": model_type}


def settings(config: Mapping[str, Any]) -> Any:
    """The configuration object of transformers for a config with its model_type.

    Raises CheckpointError for a key or value that transformers does not know.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config["model_type"]
    own = {field.name for field in fields(CONFIG_MAPPING[kind])} if kind in CONFIG_MAPPING else set()
    skipped = {*DROPPED, *(key for key in FORMER if key not in own)}
    if "num_channels" in config.keys() & skipped:
        known_value("num_channels", config["num_channels"], 3)
    # A null has no meaning for a key that the type no longer has.
    options = {
        key: value
        for key, value in config.items()
        if key not in skipped and (value is not None or key in own)
    }
    try:
        return build_config(plain(options), "the config")
    except RecipeError as error:
        raise CheckpointError(str(error)) from None


def preprocessor(folder: Folder) -> dict[str, Any]:
    """What the folder says of how images are prepared; {} where it says nothing."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        content = folder.json(name)
        prepared = content.get("image_processor", content)
        if not isinstance(prepared, Mapping):
            raise CheckpointError(
                f"{folder.path / name}: image_processor is {excerpt(prepared)}, but has to be an object"
            )
        if content:
            return dict(prepared)
    return {}


def colour(mean: object) -> list[int]:
    """The colour (0 to 255) that the originals pad with: that of an image's mean, rounded down."""
    values = _three(mean, "image_mean")
    if not all(0 <= value <= 1 for value in values):
        raise CheckpointError(f"image_mean is {excerpt(mean)}, which is no colour between 0 and 1")
    return [int(value * 255) for value in values]


def with_padding(folder: Folder, key: str, mean: str = "image_mean") -> Original:
    """The folder's checkpoint; under `key` the colour of its preprocessor's mean, with which images are padded."""
    mean_colour = preprocessor(folder).get(mean)
    padding = {key: colour(mean_colour)} if mean_colour else {}
    return Original({**folder.config, **padding}, dict(folder.tensors))


def normalisation(folder: Folder, slot: str = "encoder", key: str = "image") -> dict[str, Tensor]:
    """An encoder's mean and deviation as the folder's preprocessor has them; {} leaves the family's usual ones.

    key: with what the preprocessor's keys begin.
    """
    prepared = preprocessor(folder)
    mean, deviation = prepared.get(f"{key}_mean"), prepared.get(f"{key}_std")
    if prepared.get("do_normalize") is False:
        mean, deviation = 0.0, 1.0
    if mean is None or deviation is None:
        return {}
    return {
        f"{slot}.mean": channels(mean, f"{key}_mean"),
        f"{slot}.deviation": deviations(deviation, f"{key}_std"),
    }


def channels(value: object, key: str) -> Tensor:
    """A number for each colour as an encoder's `mean`; raises CheckpointError naming `key`."""
    return torch.tensor(_three(value, key)).view(3, 1, 1)


def deviations(value: object, key: str) -> Tensor:
    """As `channels`, of what pixels are divided by."""
    if not all(each > 0 for each in _three(value, key)):
        raise CheckpointError(
            f"{key} is {excerpt(value)}, but pixels are divided by it: it has to be above 0"
        )
    return channels(value, key)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of JSON is a number that pixels can be reckoned with: finite, of any sign."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _three(value: object, key: str) -> list[float]:
    """A number for each colour: transformers takes one for all of them, too."""
    values = list(value) if isinstance(value, list | tuple) else [value] * 3
    numbers = [float(each) for each in values if is_number(each)]
    if len(values) != 3 or len(numbers) != 3:
        raise CheckpointError(f"{key} is {excerpt(value)}, but has to be a number, or one for each colour")
    return numbers
