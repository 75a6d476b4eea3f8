"""Any vision model of the transformers library."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.encoders import Encoder
from chiasm.encoders.preprocessor import read_preprocessor
from chiasm.encoders.staged import Stages, built, run, skeleton
from chiasm.errors import RecipeError
from chiasm.parts.bounds import LayerIndex
from chiasm.storage.skeleton import weightless
from chiasm.storage.transformers_config import as_options, build_config, read_config
from chiasm.storage.transformers_weights import load_pretrained
from chiasm.storage.weights import resolve

FINAL_NORMS = (
    "post_layernorm",
    "layernorm",
    "norm",
    "rms_norm",
)  # what CLIP and SigLIP, the ViTs, newer families and AIM call it
POOLERS = ("pooler", "head")
USUAL = 224  # pixels of the side of an image, where a config names no size
EXTRAS = 64  # class, distillation and register tokens: fewer than this stand before the patches
CLASS_TOKENS = ("cls_token", "class_embedding")
_VERBS = {"join": "join", "first": "put first"}  # what `class_token` asks for, for messages


class Transformers(Encoder, name="transformers"):
    """A vision model of the transformers library: CLIP, SigLIP, DINO, ViT-MAE, DeiT, ConvNeXt, Swin, ResNet ...

    Of a plain vision transformer only what the chosen features need is kept: the blocks behind `layer`, the
    pooler and, unless `final_norm`, the last layer norm are dropped. ViT-MAE masks nothing. Distillation and
    register tokens are dropped. Of a model with stages `layer: -1` is its own output, as transformers has it, and
    any other one of its hidden states; it has neither a final norm nor a class token.

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
        levels: hidden states that a mask head reads beside the features, finer ones first, without class tokens and
            final norm (PixelLM: [14] beside `layer: -2` of CLIP-L).
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
        levels: list[LayerIndex] = [],  # noqa: B006  read only
    ):
        super().__init__()
        if (checkpoint is None) == (config is None):
            raise RecipeError("encoder 'transformers' needs either a checkpoint or a config")
        folder = resolve(checkpoint) if checkpoint is not None else None
        self.model = _load(folder, str(checkpoint)) if folder is not None else _from_scratch(config or {})
        self.layers = [layer] if isinstance(layer, int) else list(layer)
        self.levels = list(levels)
        self.class_token = class_token
        self.final_norm: nn.Module = nn.Identity()
        settings = self.model.config
        self._kind = settings.model_type
        self._accepts = set(inspect.signature(self.model.forward).parameters)
        self._stages: Stages | None = None
        if _is_plain(self.model):
            self._as_plain(final_norm)
        else:
            self._as_staged(final_norm)
        preprocessor = read_preprocessor(folder, settings.model_type)
        # Saved with the weights, because the preprocessor's file is not.
        self.register_buffer("mean", preprocessor.mean)
        self.register_buffer("deviation", preprocessor.deviation)
        if preprocessor.flips:
            _take_red_first(self.model)

    def _as_plain(self, final_norm: bool) -> None:
        settings, named = self.model.config, [n for n, _ in self.model.named_parameters()]
        if self.class_token != "drop" and not any(n.endswith(CLASS_TOKENS) for n in named):
            self._refuse_class_token()
        self.patch_size, self.size = _pair(settings.patch_size), _pair(_side(settings))
        self._check_tokens()
        depth = settings.num_hidden_layers
        deepest = max(_index(layer, depth) for layer in self.layers)
        if any(_index(level, depth) >= deepest for level in self.levels):
            raise RecipeError(
                f"levels are {self.levels}; they must lie before the features, at {self.layers}"
            )
        norm = _trim(self.model, [*self.levels, *self.layers])
        self.final_norm = norm if final_norm else self.final_norm
        self.width = settings.hidden_size * len(self.layers) * (2 if self.class_token == "join" else 1)

    def _as_staged(self, final_norm: bool) -> None:
        kind = type(self.model).__name__
        if len(self.layers) > 1:
            raise RecipeError(
                f"{kind} has stages of different grids; choose one layer of it, not {self.layers}"
            )
        if self.levels:
            raise RecipeError(f"{kind} has stages of different grids, and no levels of one; leave levels out")
        if final_norm:
            raise RecipeError(f"{kind} has its norms inside its stages; leave final_norm out")
        if self.class_token != "drop":
            self._refuse_class_token()
        self.size = _pair(getattr(self.model.config, "image_size", None) or USUAL)
        self._stages = Stages(self.model.config, self.layers[0], self.size)
        self.width = self._stages.width

    def _refuse_class_token(self) -> None:
        raise RecipeError(
            f"{type(self.model).__name__} has no class token to {_VERBS[self.class_token]}; use class_token: drop"
        )

    def _check_tokens(self) -> None:
        """Raise RecipeError unless the model makes a token of every patch of pixels alone."""
        rows, columns = self._patches(*self.size)
        output = run(skeleton(self.model.config), *self.size)
        if output is None:
            return
        count = output.last_hidden_state.shape[1]
        if not 0 <= count - rows * columns < EXTRAS:
            raise RecipeError(
                f"{type(self.model).__name__} makes {count} tokens of {rows}x{columns} patches; encoder "
                "'transformers' needs one of each"
            )

    def standalone(self) -> dict[str, Any]:
        return {"checkpoint": None, "config": as_options(self.model.config)}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self._patches(height, width)
        return (1, 1 + rows * columns) if self.class_token == "first" else (rows, columns)

    def _patches(self, height: int, width: int) -> tuple[int, int]:
        if self._stages is not None:
            at = self._stages.locate(height, width)
            return at.rows, at.columns
        rows, columns = self.patch_size
        if (height, width) != self.size and (
            height % rows or width % columns
        ):  # its own size it was made for
            raise RecipeError(
                f"encoder 'transformers' ({self._kind}) cannot cut {height}x{width} pixels "
                f"into patches of {rows}x{columns}; it was made for {self.size[0]}x{self.size[1]}"
            )
        return height // rows, width // columns

    def extra_repr(self) -> str:
        return f"layers={self.layers}, class_token={self.class_token}"

    @property
    def level_widths(self) -> tuple[int, ...]:
        return (*[self.model.config.hidden_size for _ in self.levels], self.width)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        return self._read(pixels, several=len(self.layers) > 1)[-1]

    def pyramid(self, pixels: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n gh gw c"]]:
        return self._read(pixels, several=bool(self.levels) or len(self.layers) > 1)

    def _read(self, pixels: Float[Tensor, "n 3 h w"], several: bool) -> list[Float[Tensor, "n gh gw c"]]:
        """The levels and the features. several: more hidden states than the last one are needed."""
        rows, columns = self._patches(*pixels.shape[-2:])
        extra: dict[str, Any] = {}
        if "interpolate_pos_encoding" in self._accepts:
            extra["interpolate_pos_encoding"] = tuple(pixels.shape[-2:]) != self.size
        if "noise" in self._accepts:  # ViT-MAE orders its patches by noise, also where it masks none
            extra["noise"] = torch.arange(rows * columns, device=pixels.device).expand(len(pixels), -1)
        pixels = (pixels - self.mean) / self.deviation
        if self._stages is not None:
            output = self.model(pixels, **extra, output_hidden_states=self.layers != [-1])
            return [self._stages.read(output, self._stages.locate(*pixels.shape[-2:]))]
        levels: list[Tensor] = []
        if several:
            states = self.model(pixels, **extra, output_hidden_states=True).hidden_states
            depth = self.model.config.num_hidden_layers
            hidden = torch.cat([self.final_norm(states[_index(each, depth)]) for each in self.layers], -1)
            levels = [_patch_grid(states[_index(each, depth)], rows, columns) for each in self.levels]
        else:
            hidden = self.final_norm(self.model(pixels, **extra).last_hidden_state)
        # The class token comes first, distillation and register tokens next, patches last.
        if self.class_token == "first":
            return [*levels, torch.cat([hidden[:, :1], hidden[:, -rows * columns :]], 1)[:, None]]
        features = _patch_grid(hidden, rows, columns)
        if self.class_token == "join":
            first = repeat(hidden[:, 0], "n c -> n gh gw c", gh=rows, gw=columns)
            features = torch.cat([features, first], dim=-1)
        return [*levels, features]

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {
            "config": {
                "model_type": "clip_vision_model",
                "hidden_size": 16,
                "intermediate_size": 32,
                "image_size": 32,
                "patch_size": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            }
        }


def _load(folder: Path, reference: str) -> Any:
    """The vision tower with its weights in float32; raises CheckpointError unless all are there and fit."""
    from transformers import AutoModel

    unreadable = f"transformers cannot load a vision model from {reference}"
    settings = _without_masks(read_config(folder, unreadable, "vision_config"))
    if weightless():
        return built(settings)
    return load_pretrained(
        AutoModel,
        folder,
        reference,
        unreadable,
        expected=lambda name: name.split(".")[0] not in POOLERS,
        belongs=_of_tower,
        config=settings,
    )


def _of_tower(model: Any, name: str) -> bool:
    """Whether a tensor that the tower lacks is named like one of its parts, and not of a head or another tower."""
    tops = tuple(f"{top}." for top, _ in model.named_children())
    prefixes = ("", f"{model.base_model_prefix}.", "vision_model.")
    return name.startswith(tuple(prefix + top for prefix in prefixes for top in tops))


def _from_scratch(config: dict[str, Any]) -> Any:
    return built(_without_masks(build_config(config, "encoder 'transformers': its config")))


def _is_plain(model: Any) -> bool:
    """Whether it is a vision transformer of one width, whose blocks stand in one list."""
    settings = model.config
    needed = ("patch_size", "hidden_size", "num_hidden_layers")
    sized = any(getattr(settings, name, None) is not None for name in ("image_size", "num_patches"))
    return (
        sized
        and all(getattr(settings, name, None) is not None for name in needed)
        and not hasattr(settings, "depths")
        and _blocks(model) is not None
        and any(hasattr(model, name) for name in FINAL_NORMS)
    )


def _blocks(model: Any) -> nn.ModuleList | None:
    depth = model.config.num_hidden_layers
    return next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth), None)


def _without_masks(settings: Any) -> Any:
    settings = getattr(settings, "vision_config", settings)
    if hasattr(settings, "mask_ratio"):
        settings.mask_ratio = 0.0
    return settings


def _patch_grid(hidden: Float[Tensor, "n s c"], rows: int, columns: int) -> Float[Tensor, "n gh gw c"]:
    return rearrange(hidden[:, -rows * columns :], "n (gh gw) c -> n gh gw c", gh=rows)


def _index(layer: int, depth: int) -> int:
    """How many blocks lead to a hidden state."""
    return layer if layer >= 0 else depth + 1 + layer


def _trim(model: Any, layers: list[int]) -> nn.Module:
    """Keep what leads to the hidden states; returns the final norm, which the model then has no more."""
    depth, blocks = model.config.num_hidden_layers, _blocks(model)
    assert blocks is not None
    for layer in layers:
        if not -depth - 1 <= layer <= depth:
            raise RecipeError(f"layer {layer} of a {type(model).__name__} of {depth} blocks does not exist")
    del blocks[max(_index(layer, depth) for layer in layers) :]
    for pooler in POOLERS:
        if hasattr(model, pooler):
            setattr(model, pooler, None)
    if hasattr(model, "use_head"):  # SigLIP
        model.use_head = False
    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad = False
    norm = next(name for name in FINAL_NORMS if hasattr(model, name))
    final = getattr(model, norm)
    setattr(model, norm, nn.Identity())
    return final


def _take_red_first(model: nn.Module) -> None:
    """Let a model that was trained on blue, green and red take red, green and blue: in its first convolution."""
    stem = next(m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    stem.weight.data = stem.weight.data.flip(1)


def _side(settings: Any) -> Any:
    """Pixels of the pictures for which the table of positions was made."""
    if hasattr(settings, "image_size"):
        return settings.image_size
    return math.isqrt(settings.num_patches) * settings.patch_size  # NaFlex


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
