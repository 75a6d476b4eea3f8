"""What options of the world fit together; the types themselves are checked by the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chiasm.data.world.assets import emoji_set
from chiasm.data.world.composer import SPARE, TINTS
from chiasm.data.world.styles import STYLES
from chiasm.errors import DataError, nearest

STRANGERS = 16  # at least, so that both training and the other splits have some


def check_options(given: Mapping[str, Any], known_tasks: Sequence[str]) -> None:
    """Raise DataError with a sentence about the first option of `World` that cannot be."""
    low, high = given["objects"]
    cells = given["grid"] ** 2
    canvas, drawn = given["canvas"], given["drawn_canvas"]
    counts = given["tasks"].get("count", 0)
    _require(
        1 <= low <= high <= cells,
        f"objects is {[low, high]}; two rising numbers from 1 to {cells}, the cells",
    )
    _require(given["split"] != "combination" or low >= 2, "the split `combination` needs two objects or more")
    for name in ("emoji", "unseen") if given["split"] == "emoji" else ("emoji",):
        _require(
            given[name] >= high + SPARE,
            f"{name} is {given[name]}; at least {high + SPARE}: {high} in a scene and {SPARE} to ask about",
        )
    _require(
        min(canvas, drawn) >= 8 * given["grid"],
        f"canvas is {canvas} and drawn_canvas {drawn}; 8 a cell or more",
    )
    named = given["emoji"] + given["unseen"] + given["strangers"]
    _require(
        given["strangers"] == 0 or (given["strangers"] >= STRANGERS and named <= len(emoji_set())),
        f"strangers is {given['strangers']}; 0, or {STRANGERS} or more, of the {len(emoji_set())} emoji those that "
        f"`emoji` and `unseen` leave",
    )
    for name in ("jitter", "drawn_jitter", "unanswerable"):
        _require(0 <= given[name] <= 1, f"{name} is {given[name]}; between 0 and 1")
    _require(1 <= given["tints"] <= len(TINTS), f"tints is {given['tints']}; from 1 to {len(TINTS)}")
    _require(0 < given["held_out"] <= 0.5, f"held_out is {given['held_out']}; above 0 and at most 0.5")
    _require(given["turns"] >= 1, f"turns is {given['turns']}; at least 1")
    _require(given["scenes"] >= 1, f"scenes is {given['scenes']}; at least 1")
    _require(counts <= 1, f"tasks.count is {counts}; a scene gives one counting question or none")
    for task in given["tasks"]:
        _require(task in known_tasks, f"there is no task {task!r}{nearest(task, known_tasks)}")
    for style in (*given["styles"], *given["unseen_styles"]):
        _require(style in STYLES, f"there is no style {style!r}{nearest(style, STYLES)}")
    shared = sorted(set(given["styles"]) & set(given["unseen_styles"]))
    _require(
        not shared, f"{shared} is in styles and in unseen_styles; a style that is trained on is not held out"
    )


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise DataError(f"world: {problem}")
