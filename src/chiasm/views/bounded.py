"""One view with bounded sides."""

from typing import Any

from chiasm.parts.bounds import Pixels
from chiasm.views import Size, View, Views


class Bounded(Views, name="bounded"):
    """Idefics2's one view: the picture's own aspect ratio, its sides kept within bounds (arXiv 2405.02246).

    What does not fill a patch on the right and below is left out.

    Args:
        longest: the most pixels of the longer side; a longer picture is shrunk.
        shortest: the least pixels of either side, whatever becomes of the aspect ratio.
        patch: side in pixels of what the sides become multiples of.
    """

    def __init__(self, *, longest: Pixels = 980, shortest: Pixels = 378, patch: Pixels = 14):
        self.longest, self.shortest, self.patch = longest, shortest, patch

    def split(self, size: Size) -> list[View]:
        resized = self.resize(size)
        whole_patches = Size(*(max(self.patch, side // self.patch * self.patch) for side in resized))
        box = (
            0,
            0,
            size.width * min(1, whole_patches.width / resized.width),
            size.height * min(1, whole_patches.height / resized.height),
        )
        return [View(box, whole_patches)]

    def resize(self, size: Size) -> Size:
        """The size at which a picture is shown, in whole pixels."""
        height, width = size
        ratio = width / height
        if width >= height and width > self.longest:
            width, height = self.longest, int(self.longest / ratio)
        elif height > width and height > self.longest:
            width, height = int(self.longest * ratio), self.longest
        return Size(max(height, self.shortest), max(width, self.shortest))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"patch": 8, "longest": 32, "shortest": 8}
