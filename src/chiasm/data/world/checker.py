"""Which emoji stand where in an image, recognised by template matching: exact, and without any trained network.

Every emoji of the set is looked for in every cell, over sizes, places and blurs, by normalised correlation of
colour: the template is laid on the image's own ground, both have their mean taken away, and a match is 1 at
best. Images are brought to `CELL` pixels a cell first, so that an image tokenizer's blur matters little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from chiasm.data.images import to_rgb
from chiasm.data.world.assets import Emoji, artwork
from chiasm.data.world.scene import Scene

CELL = 16  # pixels a cell at which templates are compared
SIDES = (11, 12, 13, 14, 15)  # sizes of a thing in those pixels: 0.7 to 0.9 of a cell
# How soft the templates are (standard deviations in those pixels), and what a match with a softer one is
# docked, as soft spots of colour resemble one another. Measured on photographs.
BLURS = {0.5: 0.0, 1.0: 0.04, 2.0: 0.1}
MARGIN = 1  # pixels of ground that a template has round it
SLACK = 2  # how many pixels a thing may stand outside its cell
THRESHOLD = 0.78
PLAIN = 0.2  # the least share of a picture of a scene that is plain ground; noise has less


@dataclass(frozen=True)
class SceneReading:
    """cells: the emoji of every cell in reading order, or None. scores: the best match of every cell."""

    cells: tuple[Emoji | None, ...]
    scores: tuple[float, ...]

    @property
    def recognised(self) -> int:
        return sum(emoji is not None for emoji in self.cells)


class Checker:
    """Reads images of scenes.

    emoji: what may stand in a cell. grid: rows, columns. styles: drawing styles to look for.
    threshold: the match from which a cell holds something.
    An image without a plain ground is no scene: nothing is recognised in it.
    """

    def __init__(
        self,
        emoji: Sequence[Emoji],
        *,
        grid: tuple[int, int] = (3, 3),
        styles: Sequence[str] = ("plain",),
        threshold: float = THRESHOLD,
    ):
        self.grid = grid
        self.threshold = threshold
        self.emoji = [one for one in emoji for _ in styles]
        self._templates = [(side, *_templates(emoji, styles, side, blur)) for side in SIDES for blur in BLURS]

    def read(self, image: Image.Image | Any) -> SceneReading:
        """Read a PIL picture, or an array or tensor `3 h w` in [0, 1], of any size."""
        pixels = _small(image, self.grid)
        ground, share = _ground(pixels)
        padded = np.pad(pixels - ground[:, None, None], ((0, 0), *[(SLACK + MARGIN,) * 2] * 2))
        best = np.full((self.grid[0] * self.grid[1], len(self.emoji)), -1.0, dtype=np.float32)
        for side in SIDES:
            templates = np.concatenate(
                [colour - alpha * ground[:, None, None] for s, colour, alpha in self._templates if s == side]
            )
            match = self._match(padded, templates.reshape(len(templates), 3, -1), side)
            match = match.reshape(len(match), len(BLURS), -1) - np.array(list(BLURS.values()))[:, None]
            np.maximum(best, match.max(1), out=best)
        top = best.argmax(1)
        scores = best[np.arange(len(best)), top]
        recognised = (share >= PLAIN) & (scores >= self.threshold)
        cells = tuple(self.emoji[i] if is_recognised else None for i, is_recognised in zip(top, recognised))
        return SceneReading(cells, tuple(scores.tolist()))

    def _match(self, padded: np.ndarray, templates: np.ndarray, side: int) -> np.ndarray:
        """Best correlation of every template in every cell, at this size."""
        window = side + 2 * MARGIN
        places = CELL - side + 1 + 2 * SLACK
        rows, columns = self.grid
        windows = sliding_window_view(padded, (window, window), axis=(1, 2))
        starts = (np.arange(rows)[:, None] * CELL + np.arange(places)).ravel()
        lefts = (np.arange(columns)[:, None] * CELL + np.arange(places)).ravel()
        patches = windows[:, starts[:, None], lefts[None]].transpose(1, 2, 0, 3, 4)
        patches = patches.reshape(len(starts) * len(lefts), 3, window * window)
        patches = patches - patches.mean(2, keepdims=True)
        templates = templates - templates.mean(2, keepdims=True)
        flat_patches, flat_templates = (
            patches.reshape(len(patches), -1),
            templates.reshape(len(templates), -1),
        )
        patch_norm = np.sqrt((flat_patches**2).sum(1))
        template_norm = np.sqrt((flat_templates**2).sum(1))
        product = flat_patches @ flat_templates.T
        # A faint ghost of an emoji is not an emoji: its contrast must be a third of the full one.
        score = product / (template_norm * np.maximum(patch_norm[:, None], template_norm / 3))
        score = score.reshape(rows, places, columns, places, -1)
        return score.max(axis=(1, 3)).reshape(rows * columns, -1)


def score(recognised: Sequence[Emoji | None], scene: Scene) -> dict[str, float]:
    """Shares of the requested scene that were recognised, each between 0 and 1, and numbers of cells.

    object: share of the requested things whose emoji stands anywhere (each recognised one counts once).
    count: 1 if as many things were recognised as requested.
    place: share of the requested things that stand in their cell.
    all: 1 if exactly the requested scene was recognised.
    cells_right, cells_asked: `place` as numbers to be summed over images.
    """
    requested = {thing.cell: thing.emoji for thing in scene.things}
    anywhere = Counter(requested.values()) & Counter(emoji for emoji in recognised if emoji is not None)
    right = sum(recognised[cell] == emoji for cell, emoji in requested.items())
    return {
        "object": anywhere.total() / len(requested),
        "count": float(sum(emoji is not None for emoji in recognised) == len(requested)),
        "place": right / len(requested),
        "all": float(all(recognised[cell] == requested.get(cell) for cell in range(scene.cells))),
        "cells_right": right,
        "cells_asked": len(requested),
    }


def _small(image: Image.Image | Any, grid: tuple[int, int]) -> Float[np.ndarray, "3 h w"]:
    """The image at `CELL` pixels a cell."""
    if not isinstance(image, Image.Image):
        array = image.detach().float().cpu().numpy() if hasattr(image, "detach") else np.asarray(image)
        image = Image.fromarray((array.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0))
    size = (grid[1] * CELL, grid[0] * CELL)
    small = to_rgb(image, "the image").resize(size, Image.Resampling.BICUBIC)
    return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255


def _ground(pixels: Float[np.ndarray, "3 h w"]) -> tuple[Float[np.ndarray, 3], float]:
    """The commonest colour and the share of the picture that has it.

    It is the median of the pixels in the fullest of 8 x 8 x 8 boxes of colours.
    """
    flat = pixels.reshape(3, -1)
    levels = (flat * 7.999).astype(np.int64)
    boxes = levels[0] * 64 + levels[1] * 8 + levels[2]
    ground = np.median(flat[:, boxes == np.bincount(boxes).argmax()], axis=1)
    return ground, float((np.abs(flat - ground[:, None]).max(0) < 0.08).mean())


def _templates(
    emoji: Sequence[Emoji], styles: Sequence[str], side: int, blur: float
) -> tuple[np.ndarray, np.ndarray]:
    """Colour times alpha, `n 3 window window`, and alpha, `n 1 window window`, of all emoji and styles."""
    artworks = [artwork(one, style, side) for one in emoji for style in styles]
    pixels = np.stack([np.asarray(one, dtype=np.float32) for one in artworks]).transpose(0, 3, 1, 2) / 255
    pixels = np.pad(pixels, ((0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    pixels = np.concatenate([pixels[:, :3] * pixels[:, 3:], pixels[:, 3:]], axis=1)
    if blur:
        reach = np.arange(pixels.shape[-1])
        kernel = np.exp(-((reach[:, None] - reach[None]) ** 2) / (2 * blur**2))
        kernel = (kernel / kernel.sum(0).max()).astype(np.float32)
        pixels = kernel @ pixels @ kernel
    return pixels[:, :3], pixels[:, 3:]
