"""Masks in words: outlines as polygons, rows as run lengths, and the reading back of both.

Coordinates count on a grid of `side` x `side` cells over the whole image, whatever its size, so that a text has few
different numbers. A mask of nothing is the word `none`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from chiasm.views import Size

NONE = "none"
TOLERANCE = 0.5  # of a cell, by which a simplified outline may stray
_POLYGONS = re.compile(r"\d+(?: \d+){5,}(?:; \d+(?: \d+){5,})*")
_RUNS = re.compile(r"\d+ \d+ \d+(?:; \d+ \d+ \d+)*")

Mask = Bool[np.ndarray, "h w"]
Outline = Float[np.ndarray, "k 2"]  # corners (x, y)


class MaskText(NamedTuple):
    """A way to put a mask in words. read: None for a text that is no mask of this form."""

    write: Callable[[Mask, int], str]
    read: Callable[[str, int, Size], Mask | None]


def write_polygons(mask: Mask, side: int) -> str:
    """Outlines as `x y x y x y; x y ...`; an outline within another is a hole."""
    if not mask.any():
        return NONE
    cell = np.array([mask.shape[1] / side, mask.shape[0] / side])
    rounded = (
        _without_repeats(np.rint(simplified(each / cell, TOLERANCE)).astype(int)) for each in outlines(mask)
    )
    polygons = [each for each in rounded if len(each) > 2 and _area(each)]
    return "; ".join(" ".join(map(str, each.ravel())) for each in polygons or [_box(mask, cell)])


def read_polygons(text: str, side: int, size: Size) -> Mask | None:
    if text.strip() == NONE:
        return np.zeros(size, dtype=bool)
    polygons = _numbers(text, _POLYGONS)
    if polygons is None or any(len(each) % 2 or max(each) > side for each in polygons):
        return None
    cell = np.array([size.width / side, size.height / side])
    return filled([np.reshape(each, (-1, 2)) * cell for each in polygons], size)


def write_runs(mask: Mask, side: int) -> str:
    """Runs of covered cells as `row column length; ...`, row by row; a cell is covered from one half on."""
    if not mask.any():
        return NONE
    share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((side, side), Image.Resampling.BOX))
    cells = share >= min(0.5, share.max())  # of what is smaller than half a cell, the fullest cells
    edges = np.diff(np.pad(cells, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return "; ".join(
        f"{row} {start} {end - start}" for (row, start), (_, end) in zip(starts, ends, strict=True)
    )


def read_runs(text: str, side: int, size: Size) -> Mask | None:
    cells = np.zeros((side, side), dtype=bool)
    if text.strip() != NONE:
        runs = _numbers(text, _RUNS)
        if runs is None:
            return None
        for row, start, length in runs:
            if row >= side or not 0 < length <= side - start:
                return None
            cells[row, start : start + length] = True
    rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for n in size)
    covered: Mask = cells[rows][:, columns]
    return covered


MASK_TEXTS = {"polygons": MaskText(write_polygons, read_polygons), "runs": MaskText(write_runs, read_runs)}


def outlines(mask: Mask) -> list[Outline]:
    """Closed lines between the pixels of a mask and the others; `filled` makes the same mask of them."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    onward: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Clockwise round each pixel, edges that it shares with no other: above, right, below, left.
    for other, start, end in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inside & ~other).tolist():
            onward.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    return list(_closed(onward))


def filled(polygons: Sequence[Outline], size: Size) -> Mask:
    """Pixels whose centres lie within an odd number of polygons."""
    inside = np.zeros(size, dtype=bool)
    xs, ys = np.arange(size.width) + 0.5, np.arange(size.height) + 0.5
    for polygon in polygons:
        for (x, y), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            rows = (y <= ys) != (y2 <= ys)
            if rows.any():
                crossings = x + (ys[rows] - y) * (x2 - x) / (y2 - y)
                inside[rows] ^= xs > crossings[:, None]
    return inside


def simplified(outline: Outline, tolerance: float) -> Outline:
    """Fewer corners of a closed line, the others no farther from it than the tolerance (Douglas and Peucker)."""
    far = int(np.square(outline - outline[0]).sum(1).argmax())
    halves = (outline[: far + 1], np.concatenate([outline[far:], outline[:1]]))
    return np.concatenate([_thinned(each, tolerance)[:-1] for each in halves])


def _closed(onward: dict[tuple[int, int], list[tuple[int, int]]]) -> Iterator[Outline]:
    """The closed lines of steps from corner to corner, of which as many lead to a corner as away from it."""
    while onward:
        first = next(iter(onward))
        line, corner = [first], _step(onward, first)
        while corner != first:
            line.append(corner)
            corner = _step(onward, corner)
        yield np.array(line, dtype=float)


def _step(onward: dict[tuple[int, int], list[tuple[int, int]]], corner: tuple[int, int]) -> tuple[int, int]:
    """Take a step away from a corner."""
    following = onward[corner].pop()
    if not onward[corner]:
        del onward[corner]
    return following


def _thinned(line: Outline, tolerance: float) -> Outline:
    """Fewer corners of an open line, both ends among them."""
    corners, spans = {0, len(line) - 1}, [(0, len(line) - 1)]
    while spans:
        start, end = spans.pop()
        if end - start < 2:
            continue
        along = line[end] - line[start]
        apart = line[start + 1 : end] - line[start]
        nearest = np.clip(apart @ along / max(along @ along, 1e-9), 0, 1)[:, None] * along
        distances = np.hypot(*(apart - nearest).T)
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            corners.add(start + 1 + farthest)
            spans += [(start, start + 1 + farthest), (start + 1 + farthest, end)]
    return line[sorted(corners)]


def _without_repeats(corners: np.ndarray) -> np.ndarray:
    return corners[(corners != np.roll(corners, 1, axis=0)).any(1)]


def _area(corners: np.ndarray) -> float:
    x, y = corners.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _box(mask: Mask, cell: np.ndarray) -> np.ndarray:
    """The cells round a mask that is too small for outlines."""
    ys, xs = np.nonzero(mask)
    left, top = np.floor(np.array([xs.min(), ys.min()]) / cell).astype(int)
    right, bottom = np.ceil(np.array([xs.max() + 1, ys.max() + 1]) / cell).astype(int)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _numbers(text: str, pattern: re.Pattern[str]) -> list[list[int]] | None:
    """The numbers of each part of a text; None where it is not as the pattern has it, or a number is too long."""
    text = text.strip()
    if pattern.fullmatch(text) is None or re.search(r"\d{5}", text):
        return None
    return [[int(number) for number in part.split()] for part in text.split("; ")]
