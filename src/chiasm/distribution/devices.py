"""Where a model runs, and in which numbers: the one place that decides."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from chiasm.errors import ChiasmError, quoted

DEVICES = ("cuda", "mps", "cpu")  # the fastest first
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device that is wanted, by default the fastest of this machine; raises ChiasmError if it has none such."""
    if device is None:
        device = next(kind for kind in DEVICES if count(kind))
    kind, index = _parsed(device)
    available = count(kind)
    if not available:
        others = ", ".join(each for each in DEVICES if count(each))
        raise ChiasmError(
            f"device: there is no {kind} on this machine, or torch was built without it; there is {others}"
        )
    if index is not None and index >= available:
        raise ChiasmError(
            f"device: there is no {kind}:{index}; this machine has {kind}:0 to {kind}:{available - 1}"
        )
    return torch.device(kind, index or 0) if kind == "cuda" else torch.device(kind)


def choose_dtype(
    dtype: str | torch.dtype | None = None, device: torch.device | None = None
) -> torch.dtype | None:
    """The type of numbers that is wanted; None = that of a checkpoint's weights.

    Raises ChiasmError for what is none, or none of the device's.
    """
    if dtype is None:
        return None
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(chosen, torch.dtype) or chosen not in DTYPES.values():
        raise ChiasmError(f"dtype: {_quoted(dtype)} is none; it must be {' or '.join(DTYPES)}")
    if chosen == torch.float64 and device is not None and widest(device) != chosen:
        raise ChiasmError(f"dtype: {device.type} has no fp64; fp32 is the most exact that it has")
    return chosen


def count(kind: str) -> int:
    """How many devices of a kind there are."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return 1


def name_of(device: torch.device) -> str:
    """What a device is called: the card's name, else its kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def widest(device: torch.device) -> torch.dtype:
    """The most exact numbers of a device; MPS has no doubles."""
    return torch.float32 if device.type == "mps" else torch.float64


def fitting(x: Tensor, module: nn.Module) -> Tensor:
    """Features or pixels in the numbers of a module's weights, for modules of one model may have different ones.

    Where torch casts by itself (autocast), or the module has no weights, they stay as they are.
    """
    weight = next(module.parameters(), None)
    if weight is None or not x.is_floating_point() or torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(weight.dtype)


def _parsed(device: Any) -> tuple[str, int | None]:
    text = str(device) if isinstance(device, str | torch.device) else ""
    match = re.fullmatch(r"(\w+)(?::(\d{1,4}))?", text, re.ASCII)
    if match is None or match[1] not in DEVICES:
        raise ChiasmError(
            f"device: {_quoted(device)} is none; it must be cuda, cuda:0 (or another), mps or cpu"
        )
    return match[1], None if match[2] is None else int(match[2])


def _quoted(value: Any) -> str:
    return quoted(str(value) if isinstance(value, torch.device | torch.dtype) else value)
