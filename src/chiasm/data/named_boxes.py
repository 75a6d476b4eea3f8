"""Words with named boxes in them, which say where things go.

a garden in the rain <region>a red ball: 100,400,300,600</region> <region>a cat: 500,400,900,900</region>
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from chiasm.errors import DataError, excerpt, quoted

_REGION = re.compile(r"<region>(.*?)</region>", re.DOTALL)
_TAG = re.compile(r"</?region>")
_EDGE = re.compile(r"\d{1,6}")


class NamedBox(NamedTuple):
    """What shall be seen, and where: left, top, right, bottom as shares of the image's sides."""

    name: str
    box: tuple[float, float, float, float]


def named_boxes(text: str, scale: int) -> tuple[str, list[NamedBox]]:
    """The words without their regions, and what these name; a region without a name is of the words themselves.

    scale: what the numbers of a region count to, along either side. Raises DataError for a region of another form.
    """
    words = " ".join(_REGION.sub(" ", text).split())
    contents = [match[1] for match in _REGION.finditer(text)]
    stray = _TAG.search(words) or next((_TAG.search(each) for each in contents if "<" in each), None)
    if stray is not None:
        raise DataError(f"a {stray[0]} stands without its other half in {excerpt(text)}")
    return words, [_named_box(each, words, scale) for each in contents]


def _named_box(content: str, words: str, scale: int) -> NamedBox:
    name, _, numbers = content.rpartition(":")
    edges = [each.strip() for each in numbers.split(",")]
    if len(edges) != 4 or not all(_EDGE.fullmatch(each) for each in edges):
        raise DataError(f"a region is {quoted(content.strip())}; it must be 'name: left,top,right,bottom'")
    left, top, right, bottom = map(int, edges)
    if not (left < right <= scale and top < bottom <= scale):
        raise DataError(
            f"the region {left},{top},{right},{bottom} has no area within an image of {scale} by {scale}"
        )
    name = " ".join(name.split()) or words
    if not name:
        raise DataError(f"a region is {quoted(content.strip())}, but nothing says what shall be seen in it")
    return NamedBox(name, (left / scale, top / scale, right / scale, bottom / scale))


def with_named_boxes(words: str, boxes: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Words with regions behind them, as `named_boxes` reads them. boxes: a name and whole numbers for each."""
    regions = (f"<region>{name}: {','.join(map(str, box))}</region>" for name, box in boxes)
    return " ".join([words, *regions])
