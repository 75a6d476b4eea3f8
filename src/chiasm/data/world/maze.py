"""The data source `maze`: where a way through a maze ends, with or without a thought before the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from chiasm.data import Message, Picture, Sample, Source
from chiasm.data.world.dice import Dice
from chiasm.data.world.glyphs import COLOURS
from chiasm.data.world.maze_picture import MazePicture
from chiasm.data.world.mazes import Maze, random_maze
from chiasm.errors import DataError, RecipeError
from chiasm.parts.bounds import Seed, Share

VERSION = 2  # raised when the same options would give other mazes
QUESTION = "end?"
FILLER = "."
HELD_OUT = 8  # one of so many layouts is held out
ATTEMPTS = 1000  # of which one layout is of the split
Side = Annotated[int, Field(ge=2, le=16)]
CellSide = Annotated[int, Field(ge=8, le=64, multiple_of=8)]
Ways = Annotated[int, Field(ge=2, le=len(COLOURS))]
Thought = Literal["none", "fillers", "words", "picture", "pictures"]


class MazeSource(Source, name="maze"):
    """Pictures of mazes, and the question which colour the ball reaches.

    Corridors that never meet lead to a mark each; the ball stands at the beginning of one of them. The answer is
    the last word. What may stand before it, the thought, tells the moves of the ball in one form or another; the
    maze and its answer are the same in all.

    Args:
        thought: what stands between question and answer. `none`: nothing. `fillers`: a word without a meaning for
            each move. `words`: the moves, `up`, `down`, `left` and `right`. `picture`: the maze after all moves, as
            a picture that is written. `pictures`: the maze after each of them.
        side: rows and columns, 2 to 16.
        cell: side of a cell in pixels, a multiple of 8, at most 64.
        ways: how many corridors, each with a colour of its own, 2 to 8.
        steps: fewest and most moves of each.
        dead_ends: share of the cells off all ways that are joined to a neighbour, so that ways have branches.
        split: `train`, or `held_out`: mazes whose walls, ball and places of marks, one layout of eight, never occur
            in training.
        mazes: number of mazes.
        seed: other mazes for another seed; what is held out stays the same.
    """

    def __init__(
        self,
        *,
        thought: Thought = "none",
        side: Side = 4,
        cell: CellSide = 8,
        ways: Ways = 3,
        steps: tuple[PositiveInt, PositiveInt] = (2, 4),
        dead_ends: Share = 0.0,
        split: Literal["train", "held_out"] = "train",
        mazes: PositiveInt = 20000,
        seed: Seed = 0,
    ):
        self.options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self.check_together(self.options)
        self.thought, self.side, self.cell, self.steps = thought, side, cell, steps
        self.colours, self.dead_ends = list(COLOURS)[:ways], dead_ends
        self.split, self.mazes, self.seed = split, mazes, seed
        self.maze(0)

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        _check(options["side"], options["ways"], options["steps"])

    def __len__(self) -> int:
        return self.mazes

    def __getitem__(self, index: int) -> list[Sample]:
        if not 0 <= index < self.mazes:
            raise IndexError(f"there are mazes 0 to {self.mazes - 1}; maze {index} was asked for")
        maze = self.maze(index)
        thought = self._thought(maze)
        messages = (
            Message("user", (MazePicture(maze, self.cell), QUESTION)),
            Message("assistant", (*thought, f" {maze.answer}")),
        )
        truth = {
            "task": "maze",
            "type": f"{len(maze.moves)} steps",
            "answer": maze.answer,
            "maze": maze,
            "thought": thought,
        }
        return [Sample(f"maze {index} of maze({self.split})", messages, truth)]

    def maze(self, index: int) -> Maze:
        """The maze of a sample, which no option but those of its form, its split and the seed changes."""
        dice = Dice("maze", self.seed, self.split, index)
        for _ in range(ATTEMPTS):
            maze = random_maze(self.side, self.steps, self.colours, self.dead_ends, dice)
            if maze is None:
                raise DataError(
                    f"maze: {len(self.colours)} ways of up to {self.steps[1]} steps do not fit {self.side} x "
                    f"{self.side} cells; raise side, or lower ways or steps"
                )
            if _is_held_out(maze) == (self.split == "held_out"):
                return maze
        raise DataError(
            f"maze: of {ATTEMPTS} layouts none is of the split {self.split!r}; raise side, ways or steps"
        )

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        return blake2b(f"maze {VERSION} {sorted(self.options.items())}".encode(), digest_size=16).hexdigest()

    def _thought(self, maze: Maze) -> Sequence[str | Picture]:
        """What the answer begins with."""
        moves = maze.moves
        if self.thought == "none":
            return ()
        if self.thought in ("fillers", "words"):
            return ("".join(f" {FILLER if self.thought == 'fillers' else move}" for move in moves),)
        moved = range(1, len(moves) + 1) if self.thought == "pictures" else (len(moves),)
        return tuple(MazePicture(maze, self.cell, count) for count in moved)


def _is_held_out(maze: Maze) -> bool:
    return blake2b(maze.layout.encode(), digest_size=1).digest()[0] % HELD_OUT == 0


def _check(side: int, ways: int, steps: tuple[int, int]) -> None:
    low, high = steps
    if low > high:
        raise RecipeError(f"maze: steps is {steps!r}; it must be two numbers, the first not above the second")
    if ways * (high + 1) > side**2:
        raise RecipeError(
            f"maze: {ways} ways of {high} steps have {ways * (high + 1)} cells, but {side} x {side} are "
            f"{side**2}; raise side, or lower ways or steps"
        )
