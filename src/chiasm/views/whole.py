"""One square view."""

from typing import Any, Literal

from chiasm.parts.bounds import Pixels
from chiasm.views import GREY, Size, View, Views


class Whole(Views, name="whole"):
    """The whole picture as one square view.

    Args:
        size: side of the view in pixels.
        fit: how a picture that is not square becomes so. 'pad' centres it on a square of its longer side, as
            LLaVA-1.5 does (arXiv 2310.03744); 'crop' takes the central square of its shorter side, as CLIP
            does (arXiv 2103.00020); 'stretch' changes its aspect ratio.
        padding: colour (0 to 255) of what 'pad' adds.
    """

    def __init__(
        self,
        *,
        size: Pixels = 224,
        fit: Literal["pad", "crop", "stretch"] = "pad",
        padding: tuple[int, int, int] = GREY,
    ):
        self.size = size
        self.fit = fit
        self.padding = (padding[0], padding[1], padding[2])

    def split(self, size: Size) -> list[View]:
        height, width = size
        if self.fit != "stretch":
            side = max(size) if self.fit == "pad" else min(size)
            # Whole pixels, rounded as LLaVA's expand2square does; beyond the picture where it pads.
            left, top = _centred(side, width), _centred(side, height)
            box = (left, top, left + side, top + side)
        else:
            box = (0, 0, width, height)
        return [View(box=box, size=Size(self.size, self.size), padding=self.padding)]

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"size": 32}


def _centred(side: int, length: int) -> int:
    return -((side - length) // 2) if side >= length else (length - side) // 2
