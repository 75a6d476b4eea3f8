"""Tables of UReader's and DocOwl-1.5's crops (arXiv 2310.05126, 2403.12895)."""

from __future__ import annotations

from typing import Any

from chiasm.errors import CheckpointError, nearest
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import replays_table
from chiasm.views import Size
from chiasm.views.anchors import FOUR, NINE, TWENTY, Anchors

# Lists of grids by the names that DocOwl-1.5's processor has for them.
GRIDS = {"grid_1": [(1, 1)], "grid_3x3": [(3, 3)], "grid_4": FOUR, "grid_9": NINE, "grid_20": TWENTY}
REDUCED = 4  # patches that the H-Reducer makes a token of
PATCH = 14  # pixels


@replays_table("ureader")
def replay_ureader(case: Case) -> list[dict[str, Any]]:
    """Which grid an image is cut by, and where its crops lie."""
    parameters = case.parameters
    views = Anchors(size=parameters["image_size"], grids=[(r, c) for r, c in parameters["anchors"]])
    return [_row(views, Size(row["height"], row["width"])) for row in case.record["rows"]]


@replays_table("docowl15")
def replay_docowl(case: Case) -> list[dict[str, Any]]:
    """The same, what stands before each crop, and how many tokens that makes."""
    parameters, name = case.parameters, case.parameters["anchors"]
    if name not in GRIDS:
        raise CheckpointError(f"anchors are {name!r}{nearest(str(name), GRIDS)}")
    views = Anchors(
        size=parameters["image_size"],
        grids=GRIDS[name],
        overview=parameters["add_global_img"],
        named=parameters["add_textual_crop_indicator"],
    )
    side = parameters["image_size"] // PATCH
    rows = []
    for row in case.record["rows"]:
        answer = _row(views, Size(row["height"], row["width"]))
        order = views.arrange(Size(row["height"], row["width"]), [(1, 1)] * answer["crops"])
        text = "".join("<|image|>" if index >= 0 else views.words[-1 - index] for index in order)
        rows.append({**answer, "text": text, "tokens": answer["crops"] * (side * side // REDUCED + 1)})
    return rows


def _row(views: Anchors, size: Size) -> dict[str, Any]:
    index, split = views.nearest(size), views.split(size)
    rows, columns = views.grids[index]
    return {
        "width": size.width,
        "height": size.height,
        "anchor_index": index,
        "grid_hw": (rows, columns),
        "resized": (columns * views.size, rows * views.size),
        "crops": len(split),
        "patch_positions": [(view.row, view.column) for view in split],
    }
