"""One square view with borders."""

from typing import Any

from chiasm.parts.bounds import Pixels
from chiasm.views import GREY, Size, View, Views


class Letterbox(Views, name="letterbox"):
    """The whole picture, shrunk or enlarged to whole pixels and laid on the middle of a square (DeepSeek-VL).

    Its longer side becomes `size`, the shorter is rounded down to whole pixels, as in arXiv 2403.05525's code;
    `whole` pads first and resizes then, which puts the edges between pixels.

    Args:
        size: side of the view in pixels.
        shortest: the least height and width of the picture in the view, in pixels.
        padding: colour (0 to 255) of the rest of the square.
    """

    def __init__(
        self,
        *,
        size: Pixels = 384,
        shortest: Pixels = 14,
        padding: tuple[int, int, int] = GREY,
    ):
        self.size, self.shortest = size, min(shortest, size)
        self.padding = (padding[0], padding[1], padding[2])

    def split(self, size: Size) -> list[View]:
        resized, left, top = self.lay(size)
        across, down = size.width / resized.width, size.height / resized.height
        right, bottom = left - self.size, top - self.size
        box = (-left * across, -top * down, -right * across, -bottom * down)
        return [View(box, Size(self.size, self.size), padding=self.padding)]

    def lay(self, size: Size) -> tuple[Size, int, int]:
        """The size at which a picture is shown, and its left and upper edge in the view."""
        height, width = (max(int(side / max(size) * self.size), self.shortest) for side in size)
        return Size(height, width), (self.size - width) // 2, (self.size - height) // 2

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32}
