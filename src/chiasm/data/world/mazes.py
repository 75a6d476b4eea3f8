"""Mazes whose ways are known: corridors that never meet, with a mark at the end of each."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import pairwise

from chiasm.data.world.dice import Dice

Cell = tuple[int, int]  # row, column
MOVES: dict[str, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
ATTEMPTS = (
    2000  # of which one is a maze; of the smallest grids with the longest ways a few hundred are needed
)


@dataclass(frozen=True)
class Maze:
    """Cells of a square grid, some of them joined.

    way: the cells from the ball's to its mark's. marks: the colour in each cell that has one.
    doors: pairs of neighbours, the upper or left one first, with no wall between them.
    """

    side: int
    way: tuple[Cell, ...]
    marks: dict[Cell, str]
    doors: frozenset[tuple[Cell, Cell]]

    @property
    def moves(self) -> tuple[str, ...]:
        """The directions of the way, one a step."""
        return tuple(move for a, b in pairwise(self.way) for move, cell in around(a).items() if cell == b)

    @property
    def answer(self) -> str:
        """The colour at the end of the way."""
        return self.marks[self.way[-1]]

    @property
    def layout(self) -> str:
        """All of it but the colours."""
        return f"{self.side} {self.way[0]} {sorted(self.marks)} {sorted(self.doors)}"

    def open(self, cell: Cell) -> frozenset[str]:
        """The directions in which a cell has no wall."""
        return frozenset(move for move, other in around(cell).items() if door(cell, other) in self.doors)


def around(cell: Cell) -> dict[str, Cell]:
    """The neighbours of a cell by their directions, also those off the grid."""
    return {move: (cell[0] + row, cell[1] + column) for move, (row, column) in MOVES.items()}


def door(one: Cell, other: Cell) -> tuple[Cell, Cell]:
    """Between two neighbours."""
    first, second = sorted((one, other))
    return first, second


def random_maze(
    side: int, steps: tuple[int, int], colours: list[str], dead_ends: float, dice: Dice
) -> Maze | None:
    """A maze with as many ways as colours, each of `steps` moves; None where none was found.

    dead_ends: share of the cells off all ways that are joined to a neighbour, so that ways have branches.
    """
    free = {(row, column) for row in range(side) for column in range(side)}
    ways: list[tuple[Cell, ...]] = []
    for _ in range(ATTEMPTS):
        if len(ways) == len(colours):
            break
        low, high = steps
        way = _walk(free, low + dice.below(high - low + 1), dice)
        if way:
            ways.append(way)
            free -= set(way)
        elif ways:  # another takes the place of the first
            free |= set(ways.pop(0))
    else:
        return None
    doors = {door(a, b) for way in ways for a, b in pairwise(way)}
    doors |= set(_branches(free, {cell for way in ways for cell in way}, dead_ends, dice))
    marks = {way[-1]: colour for way, colour in zip(ways, dice.shuffle(colours), strict=True)}
    return Maze(side, dice.pick(ways), marks, frozenset(doors))


def _walk(free: set[Cell], steps: int, dice: Dice) -> tuple[Cell, ...]:
    """A walk over free cells that meets no cell twice; empty where it has got stuck."""
    if not free:
        return ()
    cells = [dice.pick(sorted(free))]
    for _ in range(steps):
        going = [cell for cell in around(cells[-1]).values() if cell in free and cell not in cells]
        if not going:
            return ()
        cells.append(dice.pick(going))
    return tuple(cells)


def _branches(free: Set[Cell], joined: set[Cell], share: float, dice: Dice) -> Iterator[tuple[Cell, Cell]]:
    """Doors that join a share of the free cells, one after another, to a joined one beside it each.

    So no two ways are joined.
    """
    for _ in range(round(share * len(free))):
        beside = [cell for cell in sorted(free - joined) if joined & {*around(cell).values()}]
        cell = dice.pick(beside)
        yield door(cell, dice.pick([each for each in around(cell).values() if each in joined]))
        joined.add(cell)
