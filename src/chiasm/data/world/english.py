"""The world in English."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from chiasm.data.world.assets import Emoji
from chiasm.data.world.phrases import Phrases
from chiasm.data.world.scene import Scene

_ROWS = {1: ("",), 2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
_COLUMNS = {1: ("",), 2: ("left", "right"), 3: ("left", "center", "right")}


class English(Phrases):
    """Short sentences whose words stand for one thing each."""

    language = "en"
    directions: ClassVar = {
        (-1, -1): "above left", (-1, 0): "above", (-1, 1): "above right", (0, -1): "left",
        (0, 1): "right", (1, -1): "below left", (1, 0): "below", (1, 1): "below right",
    }  # fmt: skip
    there, not_there = "yes", "no"
    describe = "Describe."
    which = "What is this?"
    read = "What is written here?"
    then, next_pair = "becomes", "So what becomes of this?"

    def cell(self, cell: int, grid: tuple[int, int]) -> str:
        return _cell(cell, *grid)

    def label(self, emoji: Emoji) -> str:
        return f"{_a(self.name(emoji))}."

    def caption(self, scene: Scene) -> str:
        parts = [f"{_a(self.name(t.emoji))} at the {self.cell(t.cell, scene.grid)}" for t in scene.things]
        return ", ".join(parts) + "."

    def draw(self, scene: Scene) -> str:
        return f"Draw: {self.caption(scene)}"

    def what(self, cell: str) -> str:
        return f"What is at the {cell}?"

    def where(self, name: str) -> str:
        return f"Where is the {name}?"

    def count(self, name: str) -> str:
        return f"How many times does {_a(name)} appear?"  # no plural to be made of 1,914 names

    def exist(self, name: str) -> str:
        return f"Is there {_a(name)}?"

    def choice(self, one: str, other: str) -> str:
        return f"Which is there, {_a(one)} or {_a(other)}?"

    def relation(self, one: str, other: str) -> str:
        return f"Which way is the {one} from the {other}?"

    def remove(self, name: str) -> str:
        return f"Remove the {name}."

    def replace(self, name: str, other: str) -> str:
        return f"Replace the {name} with {_a(other)}."

    def move(self, name: str, cell: str) -> str:
        return f"Move the {name} to the {cell}."


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
    if name.endswith("s") and not name.endswith(("ss", "us", "is")):
        return name
    vowel = name[0].lower() in "aeiou" and not name.lower().startswith(("uni", "eu", "uk", "one", "us"))
    return f"{'an' if vowel or name == 'umbrella' else 'a'} {name}"
