"""The names in the labels of a stage's data, numbered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from chiasm.errors import RecipeError
from chiasm.objectives import Described

MOST = 100_000  # more are captions, not labels


def numbered(names: Sequence[str], objective: str) -> dict[str, int]:
    """The number of each name; raises RecipeError where they are too few to be told apart, or no labels."""
    if not 1 < len(names) <= MOST:
        raise RecipeError(
            f"objective {objective!r} needs labels, but the data names {len(names):,} different things; "
            f"2 to {MOST:,} would do"
        )
    return {name: number for number, name in enumerate(names)}


def named(batch: Described, numbers: dict[str, int]) -> Bool[Tensor, "n names"]:
    """Which names belong to which image."""
    table = torch.zeros(len(batch), len(numbers), dtype=torch.bool)
    for row, names in zip(table, batch.labels, strict=True):
        row[[numbers[name] for name in names]] = True
    return table
