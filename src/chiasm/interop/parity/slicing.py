"""How an image is sliced, as the tables of LLaVA-UHD and MiniCPM-V have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chiasm.views import Size, View
from chiasm.views.slicing import SlicePlan


def sliced(size: Size, plan: SlicePlan, slices: Sequence[View]) -> dict[str, Any]:
    """The columns that both tables have. slices: the views of the image but for the one of all of it."""
    sides, grid = plan.slice, (plan.columns, plan.rows)
    corners = [(view.column * sides.width, view.row * sides.height) for view in slices]
    return {
        "width": size.width,
        "height": size.height,
        "source_size": plan.overview[::-1],
        "grid_cols_rows": grid if plan.rows else None,
        "refine_size": (sides.width * plan.columns, sides.height * plan.rows) if plan.rows else None,
        "boxes": [(x, y, x + sides.width, y + sides.height) for x, y in corners],
    }
