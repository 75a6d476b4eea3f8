"""What a maze looks like, and where the ball of one that was drawn is."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b

import numpy as np
from PIL import Image, ImageDraw

from chiasm.data.sample import Picture
from chiasm.data.world.glyphs import COLOURS
from chiasm.data.world.mazes import MOVES, Cell, Maze
from chiasm.views import Size

FLOOR, WALL, TRAIL, BALL = (240, 240, 240), (110, 110, 120), (150, 200, 240), (0, 0, 0)
VERSION = 1  # raised when the same maze would look otherwise


class MazePicture(Picture):
    """A maze after some of its moves.

    The cells behind the ball are coloured; the ball is a ring, round the mark of its cell where that has one.

    cell: side of a cell in pixels. moved: how many moves the ball has made.
    """

    def __init__(self, maze: Maze, cell: int, moved: int = 0):
        self.maze, self.cell, self.moved = maze, cell, moved
        self.size = Size(maze.side * cell, maze.side * cell)

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        record = (
            f"maze {VERSION} {self.maze.layout} {sorted(self.maze.marks.items())} {self.cell} {self._trail}"
        )
        return blake2b(record.encode(), digest_size=16).hexdigest()

    @property
    def _trail(self) -> tuple[Cell, ...]:
        return self.maze.way[: self.moved + 1]

    def open(self) -> Image.Image:
        side = self.maze.side * self.cell
        image = Image.new("RGB", (side, side), FLOOR)
        draw = ImageDraw.Draw(image)
        for row in range(self.maze.side):
            for column in range(self.maze.side):
                self._draw_cell(draw, (row, column))
        return image

    def _draw_cell(self, draw: ImageDraw.ImageDraw, place: Cell) -> None:
        edge = self.cell // 8
        top, left = place[0] * self.cell, place[1] * self.cell
        bottom, right = top + self.cell - 1, left + self.cell - 1
        if place in self._trail[:-1]:
            draw.rectangle((left, top, right, bottom), TRAIL)
        if place == self._trail[-1]:
            draw.rectangle((left + edge, top + edge, right - edge, bottom - edge), BALL)
            inner = 2 * edge
            draw.rectangle((left + inner, top + inner, right - inner, bottom - inner), FLOOR)
        if place in self.maze.marks:
            inner = 2 * edge
            colour = COLOURS[self.maze.marks[place]]
            draw.rectangle((left + inner, top + inner, right - inner, bottom - inner), colour)
        sides = {
            "up": (left, top, right, top + edge - 1),
            "down": (left, bottom - edge + 1, right, bottom),
            "left": (left, top, left + edge - 1, bottom),
            "right": (right - edge + 1, top, right, bottom),
        }
        for move in MOVES.keys() - self.maze.open(place):
            draw.rectangle(sides[move], WALL)


def ball_of(image: Image.Image, side: int) -> Cell:
    """The cell in which a drawn maze of `side` cells a side has its ball: the one whose ring is darkest."""
    cell = 16
    pixels = np.asarray(image.convert("RGB").resize((side * cell, side * cell), Image.Resampling.BILINEAR))
    cells = pixels.max(-1).reshape(side, cell, side, cell).swapaxes(1, 2).astype(float)
    ring = np.zeros((cell, cell), dtype=bool)
    ring[2:-2, 2:-2] = True
    ring[4:-4, 4:-4] = False
    darkness = cells[:, :, ring].mean(-1)
    row, column = np.unravel_index(darkness.argmin(), darkness.shape)
    return int(row), int(column)
