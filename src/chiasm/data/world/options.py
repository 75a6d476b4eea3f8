"""What options of the world fit together; the types themselves are checked by the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chiasm.data.world.assets import emoji_set
from chiasm.data.world.composer import SPARE, TINTS
from chiasm.data.world.styles import STYLES
from chiasm.errors import DataError, nearest

STRANGERS = 16  # at least, so that both training and the other splits have some


def check_options(options: Mapping[str, Any], task_names: Sequence[str]) -> None:
    """Raise DataError with a sentence about the first option of `World` that cannot be."""
    low, high = options["objects"]
    cells = options["grid"] ** 2
    canvas, drawn_canvas = options["canvas"], options["drawn_canvas"]
    counts = options["tasks"].get("count", 0)
    _require(
        1 <= low <= high <= cells,
        f"objects is {[low, high]}; two rising numbers from 1 to {cells}, the cells",
    )
    _require(
        options["split"] != "combination" or low >= 2, "the split `combination` needs two objects or more"
    )
    for name in ("emoji", "unseen") if options["split"] == "emoji" else ("emoji",):
        _require(
            options[name] >= high + SPARE,
            f"{name} is {options[name]}; at least {high + SPARE}: {high} in a scene and {SPARE} to ask about",
        )
    _require(
        min(canvas, drawn_canvas) >= 8 * options["grid"],
        f"canvas is {canvas} and drawn_canvas {drawn_canvas}; 8 a cell or more",
    )
    named = options["emoji"] + options["unseen"] + options["strangers"]
    _require(
        options["strangers"] == 0 or (options["strangers"] >= STRANGERS and named <= len(emoji_set())),
        f"strangers is {options['strangers']}; 0, or {STRANGERS} or more, of the {len(emoji_set())} emoji "
        f"those that `emoji` and `unseen` leave",
    )
    for name in ("jitter", "drawn_jitter", "unanswerable", "untrue"):
        _require(0 <= options[name] <= 1, f"{name} is {options[name]}; between 0 and 1")
    _require(1 <= options["tints"] <= len(TINTS), f"tints is {options['tints']}; from 1 to {len(TINTS)}")
    _require(0 < options["held_out"] <= 0.5, f"held_out is {options['held_out']}; above 0 and at most 0.5")
    _require(options["turns"] >= 1, f"turns is {options['turns']}; at least 1")
    _require(options["scenes"] >= 1, f"scenes is {options['scenes']}; at least 1")
    _require(counts <= 1, f"tasks.count is {counts}; a scene gives one counting question or none")
    for task in options["tasks"]:
        _require(task in task_names, f"there is no task {task!r}{nearest(task, task_names)}")
    for style in (*options["styles"], *options["unseen_styles"]):
        _require(style in STYLES, f"there is no style {style!r}{nearest(style, STYLES)}")
    shared = sorted(set(options["styles"]) & set(options["unseen_styles"]))
    _require(
        not shared, f"{shared} is in styles and in unseen_styles; a style that is trained on is not held out"
    )


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise DataError(f"world: {problem}")
