"""A part as plain data: what it answers from sizes alone, without its weights, in whatever process asks.

A part counts with ordinary methods (`Views.split`, `Encoder.grid`, `Connector.tokens`), written once. Its outline
has the same methods. They find the part's attributes that are plain data (numbers, texts, collections of them,
dataclasses, parts without weights), of a weight its shape, and of a part within it that part's outline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from chiasm.parts import Part

_OWN = frozenset(vars(nn.Module()))  # what every module has


def outline(part: Any) -> Any:
    """A part as plain data: itself, where it has no weights."""
    if isinstance(part, nn.Module):
        return Outline(type(part), _plain_attributes(part))
    return part


@dataclass(frozen=True)
class Outline:
    """A part's class with its plain attributes, picklable; its methods are the part's."""

    _part: type
    _attributes: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by pickle and copy
            raise AttributeError(name)
        part: Any = object.__new__(self._part)  # as long as the method runs: a part that was never built
        part.__dict__.update(self._attributes)
        return getattr(part, name)


@dataclass(frozen=True)
class Shape:
    """What an outline has of a weight."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]


def _plain_attributes(part: nn.Module) -> dict[str, Any]:
    plain = {name: each for name, each in vars(part).items() if name not in _OWN and _is_plain(each)}
    for name, weight in (part._parameters | part._buffers).items():
        plain[name] = None if weight is None else Shape(tuple(weight.shape))
    for name, child in part._modules.items():
        if child is None or isinstance(child, Part):
            plain[name] = outline(child)
        elif isinstance(child, nn.ModuleList) and all(isinstance(each, Part) for each in child):
            plain[name] = tuple(map(outline, child))
    return plain


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, type | nn.Module | Tensor):
        return False
    if is_dataclass(value) or isinstance(value, Part):
        return all(map(_is_plain, vars(value).values()))
    return value is None or isinstance(value, bool | int | float | str | bytes | Enum | torch.dtype)
