"""Coloured shapes with an emoji on each: what the lists of `binding` look like as an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from chiasm.data.sample import Picture
from chiasm.data.world.assets import Emoji, artwork, assets_version
from chiasm.views import Size

COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 140, 60),
    "blue": (40, 84, 200),
    "yellow": (240, 205, 40),
    "purple": (130, 60, 160),
    "orange": (240, 130, 30),
    "black": (30, 30, 34),
    "white": (250, 250, 250),
}
GROUND = (170, 170, 176)
EMOJI = 0.5  # side of the emoji, as a share of its cell
FINE = 4  # shapes are drawn so much larger, and made smaller


def _round(corners: int, turn: float = 0.0, inner: float = 1.0) -> list[tuple[float, float]]:
    """A regular polygon, or a star whose every second corner is nearer to the middle."""
    angles = [turn + 2 * pi * i / corners for i in range(corners)]
    return [
        (0.5 + 0.5 * (inner if i % 2 else 1.0) * sin(a), 0.5 - 0.5 * (inner if i % 2 else 1.0) * cos(a))
        for i, a in enumerate(angles)
    ]


# Corners within a square of side 1.
SHAPES: dict[str, list[tuple[float, float]]] = {
    "circle": _round(40),
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "diamond": _round(4),
    "star": _round(10, inner=0.45),
    "cross": [(0.3, 0), (0.7, 0), (0.7, 0.3), (1, 0.3), (1, 0.7), (0.7, 0.7), (0.7, 1), (0.3, 1), (0.3, 0.7),
              (0, 0.7), (0, 0.3), (0.3, 0.3)],
    "hexagon": _round(6),
    "arrow": [(0, 0.3), (0.5, 0.3), (0.5, 0), (1, 0.5), (0.5, 1), (0.5, 0.7), (0, 0.7)],
    "bar": [(0, 0.25), (1, 0.25), (1, 0.75), (0, 0.75)],
    "pillar": [(0.25, 0), (0.75, 0), (0.75, 1), (0.25, 1)],
    "corner": [(0, 0), (0.6, 0), (0.6, 0.4), (1, 0.4), (1, 1), (0, 1)],
    "wedge": [(0, 0), (1, 0), (0, 1)],
    "funnel": [(0, 0), (1, 0), (0.5, 1)],
    "kite": [(0.5, 0), (1, 0.3), (0.5, 1), (0, 0.3)],
    "flag": [(0, 0), (1, 0), (0.6, 0.5), (1, 1), (0, 1)],
    "stairs": [(0, 1), (0, 0.66), (0.33, 0.66), (0.33, 0.33), (0.66, 0.33), (0.66, 0), (1, 0), (1, 1)],
}  # fmt: skip


@dataclass(frozen=True)
class Glyph:
    colour: str
    shape: str
    emoji: Emoji


class GlyphPicture(Picture):
    """Glyphs in cells of a square grid. cell: its side in pixels."""

    def __init__(self, glyphs: Sequence[tuple[int, Glyph]], grid: int, cell: int):
        self.glyphs, self.grid, self.cell = tuple(glyphs), grid, cell
        self.size = Size(grid * cell, grid * cell)

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        placed = [(place, one.colour, one.shape, one.emoji.code) for place, one in self.glyphs]
        record = f"glyphs {placed} {self.grid} {self.cell} {assets_version()}"
        return blake2b(record.encode(), digest_size=16).hexdigest()

    def open(self) -> Image.Image:
        image = Image.new("RGB", (self.grid * self.cell, self.grid * self.cell), GROUND)
        for place, glyph in self.glyphs:
            row, column = divmod(place, self.grid)
            image.paste(_drawn(glyph, self.cell), (column * self.cell, row * self.cell))
        return image


class NoisePicture(Picture):
    """Pixels without a meaning. side: in pixels."""

    def __init__(self, side: int, seed: int):
        self.side, self.seed = side, seed
        self.size = Size(side, side)
        self.key = f"noise {side} {seed}"

    def open(self) -> Image.Image:
        pixels = np.random.Generator(np.random.Philox(key=self.seed)).integers(
            0, 256, (self.side, self.side, 3)
        )
        return Image.fromarray(pixels.astype(np.uint8))


@lru_cache(maxsize=8192)
def _drawn(glyph: Glyph, cell: int) -> Image.Image:
    large = cell * FINE
    edge = large // 12
    image = Image.new("RGB", (large, large), GROUND)
    points = [(edge + x * (large - 2 * edge), edge + y * (large - 2 * edge)) for x, y in SHAPES[glyph.shape]]
    ImageDraw.Draw(image).polygon(points, fill=COLOURS[glyph.colour])
    image = image.resize((cell, cell), Image.Resampling.BOX)
    side = round(cell * EMOJI)
    emoji = artwork(glyph.emoji, "plain", side)
    image.paste(emoji, ((cell - side) // 2, (cell - side) // 2), emoji)
    return image
