"""Which crops of a picture are looked at, in which order, and at what size."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from chiasm.parts import Part


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class View:
    """One crop: a box of the picture, resized to `size`, at a place in the mosaic of crops.

    box: left, top, right, bottom in pixels of the picture.
    """

    box: tuple[float, float, float, float]
    size: Size
    row: int = 0
    column: int = 0


class Views(Part, slot="views"):
    """Interface. `split` decides from a size alone, so that token counts are known before a pixel is read."""

    @abstractmethod
    def split(self, size: Size) -> list[View]:
        """The crops of a picture of `size`, in the order in which the language model will read them."""
