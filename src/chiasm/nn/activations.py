"""Activations by the names that recipes give them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


class QuickGELU(nn.Module):
    """x times the sigmoid of 1.702 x, which OpenAI's CLIP has for GELU."""

    def forward(self, x: Float[Tensor, "*s c"]) -> Float[Tensor, "*s c"]:
        return x * torch.sigmoid(1.702 * x)


_MAKERS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


def activation(name: Activation) -> nn.Module:
    """The module for a name; `gelu` is the exact one."""
    return _MAKERS[name]()
