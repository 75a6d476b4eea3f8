"""A scene of the world as data: which emoji stands where, how large, on what ground."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from chiasm.data.world.assets import Emoji

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Thing:
    """One emoji in one cell.

    cell: row-major index of the cell.
    side: side of its square, as a share of the cell's side.
    across, down: left and upper edge of its square within the cell, as shares of the free room (0 to 1).
    """

    emoji: Emoji
    cell: int
    side: float = 0.8
    across: float = 0.5
    down: float = 0.5


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn.

    grid: rows, columns.
    things: in reading order, at most one a cell.
    tint: RGB of the ground.
    style: a name of `styles.STYLES`.
    """

    grid: tuple[int, int]
    things: tuple[Thing, ...]
    tint: tuple[int, int, int] = (255, 255, 255)
    style: str = "plain"

    @property
    def cells(self) -> int:
        return self.grid[0] * self.grid[1]

    @cached_property
    def counts(self) -> Counter[Emoji]:
        """How many there are of each emoji."""
        return Counter(thing.emoji for thing in self.things)

    @cached_property
    def single(self) -> tuple[Thing, ...]:
        """The things whose emoji occurs once: the only ones a question can speak of as "the dog"."""
        return tuple(thing for thing in self.things if self.counts[thing.emoji] == 1)

    @property
    def free(self) -> list[int]:
        """The empty cells."""
        taken = {thing.cell for thing in self.things}
        return [cell for cell in range(self.cells) if cell not in taken]

    def place(self, cell: int) -> tuple[int, int]:
        """Row and column of a cell."""
        return divmod(cell, self.grid[1])

    def box(self, thing: Thing, canvas: int) -> Box:
        """Left, top, right, bottom of a thing on a canvas of `canvas` x `canvas` pixels."""
        row, column = self.place(thing.cell)
        high, wide = canvas / self.grid[0], canvas / self.grid[1]
        side = max(1, round(thing.side * min(high, wide)))
        left = round(column * wide + thing.across * (wide - side))
        top = round(row * high + thing.down * (high - side))
        return left, top, left + side, top + side

    def boxes(self, canvas: int) -> list[Box]:
        """The box of every thing, in the order of `things`."""
        return [self.box(thing, canvas) for thing in self.things]

    def holding(self, things: list[Thing] | tuple[Thing, ...]) -> Scene:
        """The same ground and style with other things, put in reading order."""
        return replace(self, things=tuple(sorted(things, key=lambda thing: thing.cell)))

    def calmed(self, jitter: float) -> Scene:
        """The same scene with only this share (0 to 1) of the variation of place and size."""

        def calm(thing: Thing) -> Thing:
            side, across, down = (
                rest + jitter * (value - rest)
                for value, rest in ((thing.side, 0.8), (thing.across, 0.5), (thing.down, 0.5))
            )
            return replace(thing, side=side, across=across, down=down)

        return replace(self, things=tuple(map(calm, self.things)))

    def description(self) -> str:
        """Everything that determines the pixels, but for the canvas and the version of the emoji."""
        things = [
            (t.emoji.code, t.cell, round(t.side, 5), round(t.across, 5), round(t.down, 5))
            for t in self.things
        ]
        return repr((self.grid, things, self.tint, self.style))
