"""A head from its place in a recipe: an order, and the alphabet that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm import parts
from chiasm.heads import HeadContext, Order


def build_head(spec: Mapping[str, Any], context: HeadContext, where: str = "model.heads.image") -> Order:
    """Raises RecipeError for options that do not fit each other, or what the context is."""
    order = parts.lookup("order", parts.check("order", spec, where)["type"])
    assert issubclass(order, Order)
    inner = {"alphabet": (context, order.symbols(context.space))}
    return parts.build("order", spec, context, where=where, inner=inner)
