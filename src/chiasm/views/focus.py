"""The square round a box that DualFocus looks at a second time (arXiv 2402.14767)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chiasm.errors import DataError
from chiasm.views import Size

MARGIN = 25  # pixels on every side
# The words in which it is asked for; {question} stands for the user's.
BOX_QUESTION = "Please provide the bounding box coordinate of the region this question asks: {question}"
FOCUS_QUESTION = "Please combine the information from these two images and answer this question: {question}"

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Focus:
    """From a box to the pixels that are cut out, edges in pixels of the image.

    box: as it was named. square: round its centre, with its longer side. enlarged: with a margin. crop: in whole
    pixels. Everything behind `box` ends at the last pixel, of which the crop leaves out the far edge.
    """

    box: Box
    square: Box
    enlarged: Box
    crop: tuple[int, int, int, int]

    @classmethod
    def of(cls, size: Size, fractions: Box, margin: int = MARGIN) -> Focus:
        """The focus for a box in fractions of the image's width and height, 0 to 1.

        Computed in fp32, as the original does, because whole pixels depend on it. Raises DataError where nothing
        would be cut out.
        """
        scale = (size.width, size.height, size.width, size.height)
        box = tuple(fraction * length for fraction, length in zip(fractions, scale, strict=True))
        edges = np.array(box, dtype=np.float32)
        half = np.float32((edges[2:] - edges[:2]).max() / 2)
        centre = (edges[:2] + edges[2:]) / 2
        square = _inside(np.concatenate([centre - half, centre + half]), size)
        _check_area(square, fractions, size)
        enlarged = _inside(square + np.array([-margin, -margin, margin, margin], dtype=np.float32), size)
        crop = enlarged.astype(int)
        _check_area(crop, fractions, size)
        left, top, right, bottom = crop.tolist()
        return cls(_edges(box), _edges(square), _edges(enlarged), (left, top, right, bottom))


def _inside(edges: np.ndarray, size: Size) -> np.ndarray:
    last = np.array([size.width - 1, size.height - 1] * 2, dtype=np.float32)
    return np.clip(edges, np.float32(0), last)


def _check_area(edges: np.ndarray, fractions: Box, size: Size) -> None:
    if (edges[2:] <= edges[:2]).any():
        raise DataError(
            f"there is nothing to see in the box {list(fractions)} of an image of {size.width} x {size.height} "
            "pixels; a box begins before the image's last pixel, its right and bottom lie behind its left and top, "
            "and an image has two pixels or more"
        )


def _edges(values: object) -> Box:
    left, top, right, bottom = np.asarray(values).tolist()
    return left, top, right, bottom
