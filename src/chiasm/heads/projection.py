"""What alphabets of vectors share: from hidden states to vectors."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import nn

from chiasm import parts
from chiasm.errors import RecipeError


def projection(in_width: int, out_width: int, depth: int, bias: bool, where: str) -> nn.Sequential:
    """Linear layers with GELU between them; none where `depth` is 0, for which the widths must be the same.

    Raises RecipeError, which begins with `where`.
    """
    if not depth and in_width != out_width:
        raise RecipeError(
            f"{where}: with depth 0 hidden states are the vectors, but they have width {in_width} and the vectors "
            f"{out_width}; set depth: 1"
        )
    widths = [in_width] * depth + [out_width]
    layers = [layer for a, b in pairwise(widths) for layer in (nn.GELU(), nn.Linear(a, b, bias=bias))]
    return nn.Sequential(*layers[1:])


def example_tokenizer() -> dict[str, dict[str, Any]]:
    """An image tokenizer of vectors, to stand beside an example."""
    pixels = parts.lookup("image_tokenizer", "pixels")
    return {"image_tokenizer": {"type": pixels.name, **pixels.example()}}
