"""One square view whose upper left corner is the image's."""

from typing import Any

from chiasm.parts.bounds import Pixels
from chiasm.views import GREY, Size, View, Views


class Corner(Views, name="corner"):
    """The whole image, its longer side resized to `size`, in the upper left of a square (Mask2Former, PSALM).

    The shorter side becomes whole pixels, as near as can be; the rest of the square is to the right of the image or
    below it. Resized bilinearly, which blends the edge of the two; the original pads what it has resized.

    Args:
        size: side of the view in pixels.
        padding: colour (0 to 255) of the rest of the square.
    """

    def __init__(self, *, size: Pixels = 1024, padding: tuple[int, int, int] = GREY):
        self.size = size
        self.padding = (padding[0], padding[1], padding[2])

    def split(self, size: Size) -> list[View]:
        height, width = (max(1, int(side * self.size / max(size) + 0.5)) for side in size)
        box = (0.0, 0.0, size.width / width * self.size, size.height / height * self.size)
        return [View(box, Size(self.size, self.size), padding=self.padding, filter="bilinear")]

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32}
