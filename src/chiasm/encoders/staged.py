"""Where the feature grid lies in what a vision model of transformers hands out, found from shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.errors import RecipeError


@dataclass(frozen=True)
class FeatureMap:
    """Rows, columns and channels of a grid; channels_last: of a map `n h w c`, not `n c h w`; tokens: of a row
    `n t c`, whose last rows x columns are the grid."""

    rows: int
    columns: int
    width: int
    channels_last: bool = False
    tokens: bool = False


@dataclass
class Stages:
    """The features of a model whose grid narrows from stage to stage, or that hands out maps (ConvNeXt, Swin).

    All is plain data; where the grid lies is found by running a model of the same config without weights.

    settings: the model's config. layer: -1 is the model's own output, every other one of its hidden states. size:
    height and width of the square images by which the layout is found.
    Raises RecipeError for a model that does not run on pixels alone or hands out no grid.
    """

    settings: Any
    layer: int
    size: tuple[int, int]

    def __post_init__(self) -> None:
        self._known: dict[tuple[int, int], FeatureMap] = {}
        whole = self.locate(*self.size)
        self.width = whole.width
        self.stride = (self.size[0] / whole.rows, self.size[1] / whole.columns)

    def locate(self, height: int, width: int) -> FeatureMap:
        """The grid that pixels of this size become."""
        if (height, width) not in self._known:
            self._known[height, width] = self._located(height, width)
        return self._known[height, width]

    def read(self, output: Any, at: FeatureMap) -> Float[Tensor, "n gh gw c"]:
        states = self._states(output)
        if at.tokens:
            return rearrange(states[:, -at.rows * at.columns :], "n (gh gw) c -> n gh gw c", gh=at.rows)
        return states if at.channels_last else rearrange(states, "n c gh gw -> n gh gw c")

    def _located(self, height: int, width: int) -> FeatureMap:
        model = _skeleton(self.settings)
        output = run(model, height, width)
        if output is None:
            raise RecipeError(
                f"the shapes that {_name(model)} makes depend on more than the size of the pixels"
            )
        shape = tuple(self._states(output).shape)
        square = self._known.get(self.size)
        if len(shape) == 4:
            last = square.channels_last if square else shape[1] == shape[2] != shape[3]
            rows, columns, channels = shape[1:] if last else (*shape[2:], shape[1])
            return FeatureMap(rows, columns, channels, channels_last=last)
        if len(shape) != 3:
            raise RecipeError(f"{_name(model)} hands out features of the shape {shape}, which is no grid")
        if square is None:
            side = math.isqrt(shape[1])
            return FeatureMap(side, side, shape[2], tokens=True)
        rows, columns = math.ceil(height / self.stride[0]), math.ceil(width / self.stride[1])
        before = math.prod(self.size) / math.prod(self.stride)
        prefix = self._states(run(model, *self.size)).shape[1] - round(before)
        if rows * columns + prefix != shape[1]:
            raise RecipeError(
                f"{_name(model)} makes {shape[1]} tokens of {height}x{width} pixels, which is no grid of "
                f"{rows}x{columns}; it was made for {self.size[0]}x{self.size[1]}"
            )
        return FeatureMap(rows, columns, shape[2], tokens=True)

    def _states(self, output: Any) -> Tensor:
        if self.layer == -1:
            maps = getattr(output, "feature_maps", None)
            return output.last_hidden_state if maps is None else maps[-1]
        states = output.hidden_states
        if states is None or not -len(states) <= self.layer < len(states):
            count = 0 if states is None else len(states)
            name = _name(_skeleton(self.settings))
            raise RecipeError(f"layer {self.layer} of {name} of {count} states does not exist")
        return states[self.layer]


def built(settings: Any) -> Any:
    """The vision model of a config, in float32; raises RecipeError for sizes that it cannot have."""
    from transformers import AutoModel

    try:
        return AutoModel.from_config(settings, dtype=torch.float32)
    except Exception as error:  # each architecture raises what it likes for sizes that it cannot have
        raise RecipeError(
            f"transformers builds no vision model of this {settings.model_type} config: {first_line(error)}"
        ) from None


def skeleton(settings: Any) -> Any:
    """The model of a config without values, for its shapes."""
    with torch.device("meta"):
        return built(settings)


_skeletons: dict[str, nn.Module] = {}


def _skeleton(settings: Any) -> nn.Module:
    """The same, kept in this process for the next size."""
    key = settings.to_json_string()
    if key not in _skeletons:
        _skeletons[key] = skeleton(settings).eval()
    return _skeletons[key]


def run(model: nn.Module, height: int, width: int) -> Any:
    """What a model on the meta device makes of pixels; None for one that looks at values, which are not there.

    Raises RecipeError if it takes something else than pixels.
    """
    try:
        with torch.no_grad(), torch.device("meta"):
            return model(pixel_values=torch.empty(1, 3, height, width), output_hidden_states=True)
    except Exception as error:  # whatever an architecture raises for what it cannot take
        reason = first_line(error)
        if "meta tensor" in reason:
            return None
        raise RecipeError(
            f"{_name(model)} of transformers does not make features of {height}x{width} pixels alone, as an "
            f"encoder has to: {reason}"
        ) from None


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _name(model: nn.Module) -> str:
    return type(model).__name__
