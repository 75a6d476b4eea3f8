"""The world in Chinese."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from chiasm.data.world.assets import Emoji
from chiasm.data.world.chinese_wordings import WORDINGS
from chiasm.data.world.phrases import Phrases
from chiasm.data.world.scene import Scene

_ROWS = {1: "", 2: "上下", 3: "上中下"}
_COLUMNS = {1: "", 2: "左右", 3: "左中右"}


class Chinese(Phrases):
    """Short sentences, one a fact."""

    language = "zh"
    wordings: ClassVar = WORDINGS
    directions: ClassVar = {
        (-1, -1): "左上方", (-1, 0): "上方", (-1, 1): "右上方", (0, -1): "左边",
        (0, 1): "右边", (1, -1): "左下方", (1, 0): "下方", (1, 1): "右下方",
    }  # fmt: skip
    yes, no = "有", "没有"
    nowhere, nothing = "不在图中", "什么也没有"
    region: ClassVar = {"box": "方框", "point": "点"}
    then, next_pair = "变成", "那么这张图变成什么?"
    again = "和第{number}张图一样，但是："

    def cell(self, cell: int, grid: tuple[int, int]) -> str:
        return _cell(cell, *grid)

    def label(self, emoji: Emoji) -> str:
        return f"{self.name(emoji)}。"

    def caption(self, scene: Scene) -> str:
        return ",".join(f"{self.cell(t.cell, scene.grid)}是{self.name(t.emoji)}" for t in scene.things) + "。"


@cache
def _cell(cell: int, rows: int, columns: int) -> str:
    row, column = divmod(cell, columns)
    if rows > 3 or columns > 3:
        return f"第{row + 1}行第{column + 1}列"
    name = _COLUMNS[columns][column : column + 1] + _ROWS[rows][row : row + 1]
    if rows == 3 and row == 1:  # 左中, 正中, 右中; but 左上, 中上
        return {"左": "左中", "右": "右中"}.get(name[:1], "正中")
    return name or "正中"
