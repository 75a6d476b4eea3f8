"""Masks as data files write them: polygons, run lengths (COCO) or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped
from PIL import Image, ImageDraw

from chiasm.data.files import EncodedPicture
from chiasm.data.images import opacity, open_image
from chiasm.data.references import References
from chiasm.data.sample import Masks, Picture
from chiasm.errors import DataError, excerpt
from chiasm.views import Size

KIND = "masks"  # of the errors
FORM = (
    "a list of polygons [[x, y, x, y, ...], ...], run lengths {size: [h, w], counts: ...}, or an image's path"
)
WHITE = 128  # from which on a pixel of an image is of the mask
WRITTEN = "a mask is white (255) where it is, and black (0) elsewhere"
BETWEEN = (64, 192)  # lightness of what is neither black nor white
MOST_COLOURS = 256  # of an image in grey, also where its edges are soft
MOST_BETWEEN = 16  # levels of lightness, where most of an image is neither black nor white
FARTHEST = 1e6  # coordinate of a polygon


class RecordMasks(Masks):
    """Masks of a record, checked, and drawn when they are needed.

    size: of the image that they are of.
    """

    def __init__(self, entries: Sequence[Any], picture: Picture, references: References, where: str):
        """Raises DataError naming `where` for an entry of no known form, or of another size than the image."""
        self.count, self.where, self.size = len(entries), where, picture.size
        self._entries = [
            self._checked(entry, references, f"{where}, mask {i}") for i, entry in enumerate(entries, 1)
        ]

    def open(self) -> Bool[np.ndarray, "m h w"]:
        drawn = [
            _of_image(entry, f"{self.where}, mask {i}") if isinstance(entry, Picture) else self._drawn(entry)
            for i, entry in enumerate(self._entries, 1)
        ]
        return np.array(drawn, dtype=bool).reshape(-1, *self.size)

    def _checked(self, entry: Any, references: References, where: str) -> Any:
        if isinstance(entry, str):
            image = references.picture(entry, where)
            self._check_size(image.size, where)
            return image
        if isinstance(entry, Mapping) and set(entry) == {"size", "counts"}:
            size, lengths = entry["size"], entry["counts"]
            if not isinstance(size, list) or not all(type(side) is int for side in size) or len(size) != 2:
                raise DataError(f"{where} has the size {excerpt(size)}; it must be [height, width]", KIND)
            self._check_size(Size(*size), where)
            lengths = unpacked(lengths, where) if isinstance(lengths, str) else lengths
            numbers = isinstance(lengths, list) and all(type(each) is int and each >= 0 for each in lengths)
            if not numbers or sum(lengths) != size[0] * size[1]:
                raise DataError(f"{where} has run lengths that do not add up to its {size} pixels", KIND)
            return lengths
        if isinstance(entry, list) and entry and all(map(_is_polygon, entry)):
            if outside := next((each for each in entry if not self._touches(each)), None):
                raise DataError(
                    f"{where} has the polygon {excerpt(outside)}, no part of which lies in its image of "
                    f"{self.size.width} x {self.size.height} pixels",
                    KIND,
                )
            return [list(map(float, each)) for each in entry]
        raise DataError(f"{where} is {excerpt(entry)}; it must be {FORM}", KIND)

    def _check_size(self, size: Size, where: str) -> None:
        if size != self.size:
            raise DataError(
                f"{where} has {size.height} x {size.width} pixels, but its image {self.size.height} x "
                f"{self.size.width}",
                KIND,
            )

    def _touches(self, polygon: Sequence[float]) -> bool:
        """Whether the box round a polygon reaches into the image."""
        xs, ys = polygon[::2], polygon[1::2]
        return min(xs) < self.size.width and max(xs) >= 0 and min(ys) < self.size.height and max(ys) >= 0

    def _drawn(self, entry: list[Any]) -> Bool[np.ndarray, "h w"]:
        if entry and isinstance(entry[0], list):
            canvas = Image.new("1", (self.size.width, self.size.height))
            draw = ImageDraw.Draw(canvas)
            for polygon in entry:
                draw.polygon(polygon, fill=1)
            return np.asarray(canvas)
        return from_runs(entry, self.size)


def _of_image(image: Picture, where: str) -> Bool[np.ndarray, "h w"]:
    """Raises DataError for an image in which white is not told from black, such as one of labels 0 and 1."""
    _check_opaque(image, where)
    colours = np.asarray(image.open())
    lightness = colours.max(-1)
    if (lightness - colours.min(-1)).max() >= WHITE:
        raise DataError(f"{where} is an image in colour; {WRITTEN}", KIND)
    count, levels = len(np.unique(_numbered(colours))), len(np.unique(lightness))
    between = ((lightness >= BETWEEN[0]) & (lightness < BETWEEN[1])).mean()
    if count > MOST_COLOURS or (between > 0.5 and levels > MOST_BETWEEN):
        raise DataError(
            f"{where} is an image of {count:,} colours, {between:.0%} of it neither black nor white; {WRITTEN}",
            KIND,
        )
    if 0 < lightness.max() < WHITE:
        raise DataError(
            f"{where} is an image that is nowhere lighter than {lightness.max()}; {WRITTEN}", KIND
        )
    return lightness >= WHITE


def _check_opaque(image: Picture, where: str) -> None:
    """Raise DataError for an image part of which is transparent: it would lie on white, which means the mask."""
    if not isinstance(image, EncodedPicture):
        return
    alpha = opacity(open_image(image.data(), where), where)
    if alpha is not None and alpha.min() < 255:
        raise DataError(
            f"{where} is an image with transparent pixels, of which nobody knows whether they are of the mask; "
            f"{WRITTEN}, and nowhere transparent",
            KIND,
        )


def _numbered(colours: Shaped[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    """One number for each colour."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def from_runs(lengths: Sequence[int], size: Size) -> Bool[np.ndarray, "h w"]:
    """COCO's run lengths: pixels outside and inside in turn, column by column."""
    flat = np.zeros(size.height * size.width, dtype=bool)
    ends = np.cumsum([0, *lengths]).tolist()
    for i, (start, end) in enumerate(pairwise(ends)):
        flat[start:end] = i % 2
    return flat.reshape(size.width, size.height).T


def unpacked(text: str, where: str) -> list[int]:
    """COCO's packed run lengths: five bits a letter, and from the fourth on differences to the one before last."""
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise DataError(f"{where} has {letter!r} in its run lengths, which COCO's packing has not", KIND)
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError(f"{where} has run lengths that end within a number", KIND)
    return lengths


def _is_polygon(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    return numbers and all(
        isinstance(each, int | float) and not isinstance(each, bool) and abs(each) <= FARTHEST
        for each in value
    )
