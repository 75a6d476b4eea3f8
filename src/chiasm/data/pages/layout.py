"""Where the words of a page stand, and the page as an image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

from PIL import Image, ImageDraw

from chiasm.data.fonts import Typeface
from chiasm.data.pages.content import Page, WrittenCell, WrittenLine
from chiasm.data.sample import Picture
from chiasm.views import Size

LEGIBLE = 7  # pixels of a capital letter: the smallest alphabet of dots has 5 x 7
LEGIBLE_CHINESE = 12  # pixels of a Chinese letter's square: dots that tell all of them apart need 11 or 12
EDGE = 0.06  # of the width and the height, on every side
LEADING = 1.6  # from line to line, in sizes of its letters
HEIGHT = 1.25  # of a word's box, from above its capitals to below its descenders, in sizes of letters
APART = 0.4  # between cells, at least, in sizes of letters
CHECK = 0.9  # side of a box to cross, in sizes of letters; its text begins 1.3 sizes behind its left edge
CHECKED = 1.3
INK, BARS, RULES = (30, 30, 40), (60, 110, 190), (150, 150, 160)
PILLOW = Typeface()

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PageLayout:
    """size: of the image. letters: size of the smallest letters, in pixels. boxes: of each line's cells."""

    size: Size
    letters: float
    boxes: tuple[tuple[Box, ...], ...]

    def point(self, x: float, y: float) -> tuple[float, float]:
        """In pixels, of a point in the width of the text and in lines."""
        line = min(int(y), len(self.boxes) - 1)
        _, top, _, bottom = self.boxes[line][0]
        width = self.size.width
        return EDGE * width + x * (1 - 2 * EDGE) * width, top + (y - line) * (bottom - top)


@lru_cache(maxsize=4096)
def lay_out(page: Page, canvas: int, typeface: Typeface = PILLOW) -> PageLayout:
    """The page on a canvas whose longer side has so many pixels, its letters as large as fit."""
    height = canvas if page.aspect >= 1 else round(canvas * page.aspect)
    width = round(canvas / page.aspect) if page.aspect >= 1 else canvas
    room = (1 - 2 * EDGE) * width
    lines_high = sum(line.scale for line in page.lines) * LEADING
    letters = min(
        (1 - 2 * EDGE) * height / lines_high, *(_widest(line, room, typeface) for line in page.lines)
    )
    boxes, top = [], EDGE * height
    for line in page.lines:
        size, row = letters * line.scale, []
        for cell in line.cells:
            length = _length(cell, typeface) * size
            before = length if cell.at == 1 else length / 2 if cell.centred else 0.0
            left = EDGE * width + room * cell.at - before
            row.append((left, top, left + length, top + HEIGHT * size))
        boxes.append(tuple(row))
        top += size * LEADING
    return PageLayout(Size(height, width), letters, tuple(boxes))


def _widest(line: WrittenLine, room: float, typeface: Typeface) -> float:
    """The largest letters with which a line's cells do not run into each other."""
    limits = []
    for cell, following in zip(line.cells, [*line.cells[1:], None], strict=True):
        length = _length(cell, typeface)
        if cell.centred:
            space = 2 * min(cell.at, 1 - cell.at)
            if following is not None:
                space = min(space, following.at - cell.at)
                length = max(length, _length(following, typeface))
        elif cell.at == 1:
            continue
        elif cell.until is not None:
            space = cell.until - cell.at
        elif following is None:
            space = 1 - cell.at
        elif following.at == 1:
            space = (1 - cell.at) * length / (length + _length(following, typeface) + APART)
        else:
            space = following.at - cell.at
        limits.append(room * space / ((length + APART) * line.scale))
    return min(limits, default=math.inf)


def _length(cell: WrittenCell, typeface: Typeface) -> float:
    """In sizes of letters."""
    return typeface.length(cell.text) + (0 if cell.checked is None else CHECKED)


def least_canvas(
    page: Page, canvas: int, where: Iterable[tuple[int, int]], typeface: Typeface = PILLOW
) -> int:
    """Pixels of the longer side from which on the letters of these cells are legible.

    That is, capital letters are `LEGIBLE` pixels high and the squares of Chinese letters `LEGIBLE_CHINESE`.
    """
    letters = lay_out(page, canvas, typeface).letters
    return max(
        math.ceil(
            canvas
            * _legible(page.lines[line].cells[cell].text, typeface)
            / (letters * page.lines[line].scale)
        )
        for line, cell in where
    )


def _legible(text: str, typeface: Typeface) -> float:
    """The size of letters from which on a text can be read, in pixels."""
    latin = LEGIBLE / typeface.capital
    return max(latin, LEGIBLE_CHINESE) if any("\u4e00" <= letter <= "\u9fff" for letter in text) else latin


class PagePicture(Picture):
    """A page that is written when it is opened. canvas: its longer side in pixels. tint: of the paper."""

    def __init__(
        self,
        page: Page,
        canvas: int,
        tint: tuple[int, int, int] = (255, 255, 255),
        typeface: Typeface = PILLOW,
    ):
        self.page, self.canvas, self.tint, self.typeface = page, canvas, tint, typeface

    @property
    def layout(self) -> PageLayout:
        return lay_out(self.page, self.canvas, self.typeface)

    @property
    def size(self) -> Size:  # type: ignore[override]
        return self.layout.size

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        page = self.page
        drawn = f"{page.lines} {page.marks} {page.aspect} {self.canvas} {self.tint} {self.typeface.key}"
        return blake2b(f"page {drawn}".encode(), digest_size=16).hexdigest()

    def open(self) -> Image.Image:
        image = Image.new("RGB", (self.size.width, self.size.height), self.tint)
        draw, layout = ImageDraw.Draw(image), self.layout
        thin = max(1, round(layout.letters * 0.08))
        for mark in self.page.marks:
            points = [layout.point(x, y) for x, y in mark.points]
            if mark.filled:
                draw.polygon(points, BARS)
            else:
                straight = len({y for _, y in mark.points}) == 1
                draw.line(points, RULES if straight else BARS, thin if straight else 2 * thin)
        for line, boxes in zip(self.page.lines, layout.boxes, strict=True):
            size = max(1.0, layout.letters * line.scale)
            for cell, (left, top, _, _) in zip(line.cells, boxes, strict=True):
                if cell.checked is not None:
                    _draw_check(draw, left, top, size, thin, cell.checked)
                    left += CHECKED * size
                draw.text((left, top), cell.text, INK, self.typeface.at(size))
        return image


def _draw_check(
    draw: ImageDraw.ImageDraw, left: float, top: float, size: float, thin: int, checked: bool
) -> None:
    top += (HEIGHT - CHECK) / 2 * size
    right, bottom = left + CHECK * size, top + CHECK * size
    draw.rectangle((left, top, right, bottom), outline=INK, width=thin)
    if checked:
        draw.line((left, top, right, bottom), INK, 2 * thin)
        draw.line((left, bottom, right, top), INK, 2 * thin)


class PagePart(Picture):
    """A rectangle of a page. box: left, top, right and bottom in pixels."""

    def __init__(self, whole: PagePicture, box: tuple[int, int, int, int]):
        self.whole, self.box = whole, box
        self.size = Size(box[3] - box[1], box[2] - box[0])

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        return blake2b(f"part {self.box} of {self.whole.key}".encode(), digest_size=16).hexdigest()

    def open(self) -> Image.Image:
        return self.whole.open().crop(self.box)
