"""Where the words of a page stand, and the page as an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

import PIL
from PIL import Image, ImageDraw, ImageFont

from chiasm.data.pages.content import Page
from chiasm.data.sample import Picture
from chiasm.views import Size

LEGIBLE = 7  # pixels of a capital letter: the smallest alphabet of dots has 5 x 7
EDGE = 0.06  # of the width and the height, on every side
LEADING = 1.6  # from line to line, in sizes of its letters
HEIGHT = 1.25  # of a word's box, from above its capitals to below its descenders, in sizes of letters
INK = (30, 30, 40)
_PROBE = 100  # pixels of the letters that are measured

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PageLayout:
    """size: of the image. letters: size of the smallest letters, in pixels. boxes: of each line's cells."""

    size: Size
    letters: float
    boxes: tuple[tuple[Box, ...], ...]


@lru_cache(maxsize=4096)
def lay_out(page: Page, canvas: int) -> PageLayout:
    """The page on a canvas whose longer side has so many pixels, its letters as large as fit."""
    height = canvas if page.aspect >= 1 else round(canvas * page.aspect)
    width = round(canvas / page.aspect) if page.aspect >= 1 else canvas
    room = (1 - 2 * EDGE) * width
    lines_high = sum(line.scale for line in page.lines) * LEADING
    letters = min(
        (1 - 2 * EDGE) * height / lines_high, *(_widest(page, i, room) for i in range(len(page.lines)))
    )
    boxes, top = [], EDGE * height
    for line in page.lines:
        size, row = letters * line.scale, []
        for cell in line.cells:
            length = _length(cell.text) * size
            left = EDGE * width + (room - length if cell.at == 1 else room * cell.at)
            row.append((left, top, left + length, top + HEIGHT * size))
        boxes.append(tuple(row))
        top += size * LEADING
    return PageLayout(Size(height, width), letters, tuple(boxes))


def _widest(page: Page, index: int, room: float) -> float:
    """The largest letters with which a line's cells do not run into each other."""
    line, limits = page.lines[index], []
    for cell, following in zip(line.cells, [*line.cells[1:], None], strict=True):
        if cell.at == 1:
            continue
        if following is None:
            space = room * (1 - cell.at)
        elif following.at == 1:
            space = room * (1 - cell.at) * _share(cell.text, following.text)
        else:
            space = room * (following.at - cell.at)
        limits.append(space / ((_length(cell.text) + 0.4) * line.scale))
    return min(limits, default=math.inf)


def _share(left: str, right: str) -> float:
    return _length(left) / (_length(left) + _length(right) + 0.4)


@lru_cache(maxsize=65536)
def _length(text: str) -> float:
    """Of a text, in sizes of its letters."""
    return float(_font(_PROBE).getlength(text)) / _PROBE


@lru_cache(maxsize=1)
def capital_height() -> float:
    """Of a capital letter, in sizes of letters."""
    box = _font(_PROBE).getbbox("H")
    return (box[3] - box[1]) / _PROBE


@lru_cache(maxsize=256)
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def least_canvas(page: Page, canvas: int, lines: set[int]) -> int:
    """Pixels of the longer side from which on capital letters in these lines are `LEGIBLE` high."""
    letters = lay_out(page, canvas).letters * min(page.lines[i].scale for i in lines)
    return math.ceil(canvas * LEGIBLE / (letters * capital_height()))


class PagePicture(Picture):
    """A page that is written when it is opened. canvas: its longer side in pixels. tint: of the paper."""

    def __init__(self, page: Page, canvas: int, tint: tuple[int, int, int] = (255, 255, 255)):
        self.page, self.canvas, self.tint = page, canvas, tint

    @property
    def layout(self) -> PageLayout:
        return lay_out(self.page, self.canvas)

    @property
    def size(self) -> Size:  # type: ignore[override]
        return self.layout.size

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        text = f"page {self.page.lines} {self.page.aspect} {self.canvas} {self.tint} pillow {PIL.__version__}"
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def open(self) -> Image.Image:
        image = Image.new("RGB", (self.size.width, self.size.height), self.tint)
        draw = ImageDraw.Draw(image)
        for line, boxes in zip(self.page.lines, self.layout.boxes, strict=True):
            font = _font(max(1.0, self.layout.letters * line.scale))
            for cell, (left, top, _, _) in zip(line.cells, boxes, strict=True):
                draw.text((left, top), cell.text, INK, font)
        if self.page.table:  # a rule below its head
            _, _, _, bottom = self.layout.boxes[0][0]
            draw.line(
                (self.size.width * EDGE, bottom * 1.01, self.size.width * (1 - EDGE), bottom * 1.01), INK
            )
        return image


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
