"""The world in English."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from chiasm.data.world.assets import Emoji
from chiasm.data.world.english_wordings import WORDINGS
from chiasm.data.world.phrases import Phrases
from chiasm.data.world.scene import Scene

_ROWS = {1: ("",), 2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
_COLUMNS = {1: ("",), 2: ("left", "right"), 3: ("left", "center", "right")}


class English(Phrases):
    """Short sentences whose words stand for one thing each."""

    language = "en"
    wordings: ClassVar = WORDINGS
    directions: ClassVar = {
        (-1, -1): "above left", (-1, 0): "above", (-1, 1): "above right", (0, -1): "left",
        (0, 1): "right", (1, -1): "below left", (1, 0): "below", (1, 1): "below right",
    }  # fmt: skip
    yes, no = "yes", "no"
    nowhere, nothing = "nowhere", "nothing"
    region: ClassVar = {"box": "the box ", "point": "the place "}
    then, next_pair = "becomes", "So what becomes of this?"
    again = "As in picture {number}, but:"

    def cell(self, cell: int, grid: tuple[int, int]) -> str:
        return _cell(cell, *grid)

    def label(self, emoji: Emoji) -> str:
        return f"{_a(self.name(emoji))}."

    def caption(self, scene: Scene) -> str:
        parts = [f"{_a(self.name(t.emoji))} at the {self.cell(t.cell, scene.grid)}" for t in scene.things]
        return ", ".join(parts) + "."

    def forms(self, one: str, other: str) -> dict[str, str]:
        return {"one": one, "a_one": _a(one), "ones": _plural(one), "other": other, "a_other": _a(other)}


@cache
def _cell(cell: int, rows: int, columns: int) -> str:
    row, column = divmod(cell, columns)
    if rows > 3 or columns > 3:
        return f"row {row + 1} column {column + 1}"
    if (rows, columns) == (3, 3) and cell == 4:
        return "center"
    return f"{_ROWS[rows][row]} {_COLUMNS[columns][column]}".strip() or "center"


@cache
def _a(name: str) -> str:
    """The name with its indefinite article; none for what looks like a plural."""
    if _looks_plural(name):
        return name
    vowel = name[:1].lower() in "aeiou" and not name.lower().startswith(("uni", "eu", "uk", "one", "us"))
    return f"{'an' if vowel or name == 'umbrella' else 'a'} {name}"


_IRREGULAR = {
    "mouse": "mice",
    "fish": "fish",
    "die": "dice",
    "sheep": "sheep",
    "broccoli": "broccoli",
    "corn": "corn",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "volcano": "volcanoes",
    "snowman": "snowmen",
}


@cache
def _plural(name: str) -> str:
    """More than one of the curated names; of Unicode's longer names, which have no plain plural, copies."""
    if not name.isalpha():
        return f"copies of {name}"
    if name in _IRREGULAR or _looks_plural(name):
        return _IRREGULAR.get(name, name)
    if name.endswith(("s", "x", "ch", "sh")):
        return f"{name}es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}s"


def _looks_plural(name: str) -> bool:
    return name.endswith("s") and not name.endswith(("ss", "us", "is"))
