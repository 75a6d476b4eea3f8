"""Spaces: what an image tokenizer makes, and what a head writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

from chiasm.errors import ChiasmError


@dataclass(frozen=True)
class Codes:
    """A grid of whole numbers.

    grid: rows and columns. size: how many different codes there are, from 0 on.
    scales: rows and columns of each scale, the coarsest first, where the grid is one row of several scales.
    end: the code that ends an image, where the number of codes varies; what stands behind it means nothing.
    """

    content: ClassVar[str] = "codes"

    grid: tuple[int, int]
    size: int
    scales: tuple[tuple[int, int], ...] | None = None
    end: int | None = None

    @property
    def length(self) -> int:
        """Positions of an image."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Vectors:
    """A grid of vectors.

    grid: rows and columns; (0, 0) = as many as whoever writes them likes. width: numbers of each vector.
    """

    content: ClassVar[str] = "vectors"

    grid: tuple[int, int]
    width: int

    @property
    def length(self) -> int:
        """Positions of an image."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class WordIds(Codes):
    """Words of the language model in one row, as its ids; `end` stands behind the last."""

    content: ClassVar[str] = "words"


Space: TypeAlias = Codes | Vectors


def check_codes(codes: Int[Tensor, "n gh gw"], grid: tuple[int, int], size: int, reader: str) -> None:
    """Raise ChiasmError on codes of another grid, or that are not below `size`. reader: for whom, in messages."""
    check_grid(codes, grid, reader)
    if codes.numel() and not (codes.min() >= 0 and codes.max() < size):
        raise ChiasmError(
            f"codes from {int(codes.min())} to {int(codes.max())} given to {reader} of {size} codes "
            f"(0 to {size - 1})"
        )


def check_grid(codes: Int[Tensor, "n gh gw"], grid: tuple[int, int], reader: str) -> None:
    """Raise ChiasmError on codes of another grid."""
    if tuple(codes.shape[1:]) != tuple(grid):
        raise ChiasmError(f"codes of shape {tuple(codes.shape)} given to {reader} of grid {tuple(grid)}")


class Refinement(Protocol):
    """What the codes of a scale add to those of the coarser ones.

    scales: codes a side, the coarsest first. width: channels of what they say.
    """

    @property
    def scales(self) -> Sequence[int]: ...

    @property
    def width(self) -> int: ...

    def next_inputs(self, codes: Int[Tensor, "n 1 l"]) -> Float[Tensor, "n m c"]:
        """For every scale but the first, what the coarser ones say, averaged to its size."""

    def contribution(self, codes: Int[Tensor, "n h w"], index: int) -> Float[Tensor, "n c h2 w2"]:
        """What the codes of one scale say, at full size."""

    def averaged(self, partial_sum: Float[Tensor, "n c h w"], index: int) -> Float[Tensor, "n m c"]:
        """What all scales so far say together, at the cells of a scale in raster order."""
