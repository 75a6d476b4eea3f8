"""A head from its place in a recipe: an order, and the parts that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.heads import AnyAlphabet, HeadContext, Order
from chiasm.tokenizers.spaces import Space


def build_head(spec: Mapping[str, Any], context: HeadContext, where: str = "model.heads.image") -> Order:
    """Raises RecipeError for options that do not fit each other, or what the context is."""
    options = parts.check("order", spec, where)
    order, alphabet = order_of(options), alphabet_of(options)
    for slot, part in (("order", order), ("alphabet", alphabet)):
        if type(context.space) not in part.spaces:
            raise RecipeError(
                f"{slot} {part.name!r} writes {_contents(part.spaces)}, but the image tokenizer makes "
                f"{context.space.content}; {context.space.content} are written by {_fitting(slot, context.space)}"
            )
    return parts.build("order", options, context, where=where, inner=order.inner(options, context))


def order_of(spec: Mapping[str, Any]) -> type[Order]:
    order = parts.lookup("order", spec["type"])
    assert issubclass(order, Order)
    return order


def alphabet_of(spec: Mapping[str, Any]) -> type[AnyAlphabet]:
    """The alphabet that an order holds. spec: of the order, checked."""
    alphabet = parts.lookup("alphabet", spec["alphabet"]["type"])
    assert issubclass(alphabet, AnyAlphabet)
    return alphabet


def _contents(spaces: tuple[type[Space], ...]) -> str:
    return " or ".join(space.content for space in spaces)


def _fitting(slot: str, space: Space) -> str:
    parts_of_slot: list[Any] = [parts.lookup(slot, name) for name in parts.names(slot)]
    return ", ".join(repr(part.name) for part in parts_of_slot if type(space) in part.spaces)
