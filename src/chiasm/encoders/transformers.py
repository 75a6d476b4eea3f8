from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.bounds import LayerIndex
from chiasm.encoders import Encoder
from chiasm.errors import CheckpointError, RecipeError, reason
from chiasm.weights import resolve

# What a family was trained with, for a checkpoint without a preprocessor_config.json: mean and deviation.
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# By `model_type`; IMAGENET for all others (DINOv2, ViT-MAE, DeiT ...).
NORMALISATION = {
    "clip_vision_model": OPENAI,
    "siglip_vision_model": HALF,
    "siglip2_vision_model": HALF,
    "vit": HALF,
}

FINAL_NORMS = (
    "post_layernorm",
    "layernorm",
    "norm",
)  # what CLIP and SigLIP, the ViTs, and newer families call it
POOLERS = ("pooler", "head")
CLASS_TOKENS = ("cls_token", "class_embedding")
_VERBS = {"join": "join", "first": "put first"}  # what `class_token` asks for, for messages


class Transformers(Encoder, name="transformers"):
    """A plain vision transformer of the transformers library: CLIP, SigLIP, DINO, DINOv2, ViT-MAE, DeiT, ViT ...

    Only what the chosen features need is kept: the blocks behind `layer`, the pooler and, unless
    `final_norm`, the last layer norm are dropped. ViT-MAE masks nothing. Distillation and
    register tokens are dropped.

    Args:
        checkpoint: a local folder or hub name; of a model with several towers the vision tower is taken.
        config: instead of a checkpoint, from scratch: a transformers config with its `model_type`
            (`{model_type: clip_vision_model, hidden_size: 192, ...}`).
        layer: which hidden state, counted as in LLaVA: 0 is the embeddings, 1 the first block's output, -1
            the last block's, -2 the one before. All of them are before the final layer norm. Several are joined on
            channels, in their order (the levels of Honeybee's D-Abstractor).
        final_norm: apply the model's final layer norm to that hidden state. PaliGemma takes SigLIP with
            `layer: -1, final_norm: true`; LLaVA takes CLIP with `layer: -2` and without.
        class_token: 'drop' it; 'join' it to every feature on channels, behind the feature's own (which doubles the
            width); or put it 'first': then the features are one row of 1 + patches, for connectors that know no
            grid.
    """

    model: Any  # a PreTrainedModel; Any, so that transformers is imported only where it is used
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        config: dict[str, Any] | None = None,
        layer: LayerIndex | list[LayerIndex] = -1,
        final_norm: bool = False,
        class_token: Literal["drop", "join", "first"] = "drop",
    ):
        super().__init__()
        if (checkpoint is None) == (config is None):
            raise RecipeError("encoder 'transformers' needs either a checkpoint or a config")
        folder = resolve(checkpoint) if checkpoint is not None else None
        self.model = _load(folder, str(checkpoint)) if folder is not None else _from_scratch(config or {})
        if class_token != "drop" and not any(
            n.endswith(CLASS_TOKENS) for n, _ in self.model.named_parameters()
        ):
            raise RecipeError(
                f"{type(self.model).__name__} has no class token to {_VERBS[class_token]}; use class_token: drop"
            )
        self.layers = [layer] if isinstance(layer, int) else list(layer)
        norm = _trim(self.model, self.layers)
        self.final_norm = norm if final_norm else nn.Identity()
        self.class_token = class_token
        settings = self.model.config
        self.patch_size = _pair(settings.patch_size)
        self.size = _pair(_side(settings))
        self.width = settings.hidden_size * len(self.layers) * (2 if class_token == "join" else 1)
        mean, deviation = _normalisation(folder, settings.model_type)
        # Saved with the weights, because the preprocessor's file is not.
        self.register_buffer("mean", torch.tensor(mean).float().view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).float().view(3, 1, 1))
        self._accepts = set(inspect.signature(self.model.forward).parameters)

    def standalone(self) -> dict[str, Any]:
        settings = self.model.config
        return {"checkpoint": None, "config": settings.to_diff_dict() | {"model_type": settings.model_type}}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self._patches(height, width)
        return (1, 1 + rows * columns) if self.class_token == "first" else (rows, columns)

    def _patches(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.patch_size
        if height % rows or width % columns:
            raise RecipeError(
                f"encoder 'transformers' ({self.model.config.model_type}) cannot cut {height}x{width} pixels "
                f"into patches of {rows}x{columns}; it was made for {self.size[0]}x{self.size[1]}"
            )
        return height // rows, width // columns

    def extra_repr(self) -> str:
        return f"layers={self.layers}, class_token={self.class_token}"

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        rows, columns = self._patches(*pixels.shape[-2:])
        extra: dict[str, Any] = {}
        if "interpolate_pos_encoding" in self._accepts:
            extra["interpolate_pos_encoding"] = tuple(pixels.shape[-2:]) != self.size
        if "noise" in self._accepts:  # ViT-MAE orders its patches by noise, also where it masks none
            extra["noise"] = torch.arange(rows * columns, device=pixels.device).expand(len(pixels), -1)
        pixels = (pixels - self.mean) / self.deviation
        if len(self.layers) == 1:
            hidden = self.final_norm(self.model(pixels, **extra).last_hidden_state)
        else:
            states = self.model(pixels, **extra, output_hidden_states=True).hidden_states
            depth = self.model.config.num_hidden_layers
            hidden = torch.cat([self.final_norm(states[_index(each, depth)]) for each in self.layers], -1)
        # The class token comes first, distillation and register tokens next, patches last.
        if self.class_token == "first":
            return torch.cat([hidden[:, :1], hidden[:, -rows * columns :]], 1)[:, None]
        features = rearrange(hidden[:, -rows * columns :], "n (gh gw) c -> n gh gw c", gh=rows)
        if self.class_token == "drop":
            return features
        return torch.cat([features, repeat(hidden[:, 0], "n c -> n gh gw c", gh=rows, gw=columns)], dim=-1)


def _load(folder: Path, reference: str) -> Any:
    """The vision tower with its weights in float32; raises CheckpointError unless all are there and fit."""
    from transformers import AutoConfig, AutoModel

    try:
        settings = _without_masks(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        with _quiet():
            model, info = AutoModel.from_pretrained(
                folder,
                config=settings,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"transformers cannot load a vision model from {reference}: {reason(error)}"
        ) from error
    tops = tuple(f"{name}." for name, _ in model.named_children())
    prefixes = {"", f"{model.base_model_prefix}.", "vision_model."}
    surplus = [
        k for k in info["unexpected_keys"] if any(k.startswith(tuple(p + t for t in tops)) for p in prefixes)
    ]
    missing = [key for key in info["missing_keys"] if key.split(".")[0] not in POOLERS]
    problems = {
        "missing": missing,
        "left over": surplus,
        "of another shape": [k[0] for k in info["mismatched_keys"]],
    }
    said = [
        f"{len(keys)} {problem}: {', '.join(sorted(keys)[:10])}" for problem, keys in problems.items() if keys
    ]
    if said:
        raise CheckpointError(f"{reference} does not fit {type(model).__name__}: {'; '.join(said)}")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and its report of left-over tensors, which are judged here."""
    from transformers.utils import logging

    verbosity, shows = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows:
            logging.enable_progress_bar()


def _from_scratch(config: dict[str, Any]) -> Any:
    from huggingface_hub.errors import StrictDataclassError  # a value of another type than the field's
    from transformers import AutoConfig, AutoModel

    try:
        options = dict(config)
        return AutoModel.from_config(
            _without_masks(AutoConfig.for_model(options.pop("model_type"), **options))
        )
    except (KeyError, ValueError, StrictDataclassError) as error:
        raise RecipeError(f"transformers has no vision model for the config {config}: {error}") from error


def _without_masks(settings: Any) -> Any:
    settings = getattr(settings, "vision_config", settings)
    if hasattr(settings, "mask_ratio"):
        settings.mask_ratio = 0.0
    return settings


def _index(layer: int, depth: int) -> int:
    """How many blocks lead to a hidden state."""
    return layer if layer >= 0 else depth + 1 + layer


def _trim(model: Any, layers: list[int]) -> nn.Module:
    """Keep what leads to the hidden states; returns the final norm, which the model then has no more."""
    depth = model.config.num_hidden_layers
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    norm = next((name for name in FINAL_NORMS if hasattr(model, name)), None)
    if not found or norm is None:
        raise RecipeError(
            f"{type(model).__name__} is not a plain vision transformer; encoder 'transformers' needs one"
        )
    for layer in layers:
        if not -depth - 1 <= layer <= depth:
            raise RecipeError(f"layer {layer} of a {type(model).__name__} of {depth} blocks does not exist")
    del found[0][max(_index(layer, depth) for layer in layers) :]
    for pooler in POOLERS:
        if hasattr(model, pooler):
            setattr(model, pooler, None)
    if hasattr(model, "use_head"):  # SigLIP
        model.use_head = False
    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad = False
    final = getattr(model, norm)
    setattr(model, norm, nn.Identity())
    return final


def _normalisation(folder: Path | None, model_type: str) -> tuple[Any, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = folder / name if folder is not None else None
        if file is not None and file.is_file():
            said = json.loads(file.read_text())
            said = said.get("image_processor", said)
            if said.get("do_normalize") is False:
                return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            if "image_mean" in said and "image_std" in said:
                return tuple(said["image_mean"]), tuple(said["image_std"])
    return NORMALISATION.get(model_type, IMAGENET)


def _side(settings: Any) -> Any:
    """Pixels of the pictures for which the table of positions was made."""
    if hasattr(settings, "image_size"):
        return settings.image_size
    return math.isqrt(settings.num_patches) * settings.patch_size  # NaFlex


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
