"""Sampling options that the images of a model do not go by."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.recipe.schema import OF_IMAGES, Recipe, SamplingOptions


def check_sampling(recipe: Recipe) -> None:
    """Raise RecipeError for an option, other than its default, that the images of the model do not go by."""
    head = recipe.model.get("heads.image")
    if head is None:
        return
    default, read = SamplingOptions(), _read(head)
    for name in OF_IMAGES:
        value, usual = getattr(recipe.sampling, name), getattr(default, name)
        if value != usual and name not in read:
            reason = images_go_by(head["type"], head["alphabet"]["type"], read)
            raise RecipeError(
                f"sampling.{name} is {value!r}, which would change nothing: {reason}; leave it out, or at {usual!r}"
            )


def images_go_by(order: str, alphabet: str, read: Collection[str]) -> str:
    """Which options the images of a head go by, as a part of a sentence."""
    listed = " and ".join(name for name in OF_IMAGES if name in read) or "no option"
    return f"images of order {order!r} with alphabet {alphabet!r} go by {listed} alone"


def _read(head: dict[str, Any]) -> frozenset[str]:
    order: Any = parts.lookup("order", head["type"])
    return order.sampled_with(parts.lookup("alphabet", head["alphabet"]["type"]))
