"""One view of a fixed height and width."""

from typing import Any

from chiasm.parts.bounds import Pixels
from chiasm.views import Size, View, Views


class Stretched(Views, name="stretched"):
    """The whole image stretched to one size, whatever its aspect ratio (Monkey, arXiv 2311.06607).

    Monkey's encoder, `windows`, cuts it.

    Args:
        height: of the view in pixels.
        width: of the view in pixels.
    """

    def __init__(self, *, height: Pixels = 896, width: Pixels = 896):
        self.size = Size(height, width)

    def split(self, size: Size) -> list[View]:
        return [View((0, 0, size.width, size.height), self.size)]

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"height": 32, "width": 32}
