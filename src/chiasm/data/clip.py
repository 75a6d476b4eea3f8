"""Moving pictures as data, also as one image of all their frames, and pictures as pixels."""

from __future__ import annotations

from abc import abstractmethod
from math import ceil, sqrt

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from chiasm.data.cut import cut
from chiasm.data.sample import Picture
from chiasm.errors import DataError
from chiasm.views import Size, View


class Clip(Picture):
    """A moving picture. Whoever takes only still ones sees its first frame.

    length: number of frames.
    """

    length: int

    @abstractmethod
    def frames(self) -> list[Image.Image]:
        """All frames as RGB, of one size; raises DataError naming the clip if that cannot be done."""

    def open(self) -> Image.Image:
        return self.frames()[0]


class ClipSheet(Picture):
    """The frames of a clip side by side in one image, row by row on a square of cells; what is over is white.

    So a clip passes where images do, and image tokenizer `contact_sheet` makes its codes.
    """

    def __init__(self, clip: Clip):
        self.clip, self.key = clip, f"sheet of {clip.key}"
        side = sheet_side(clip.length)
        self.size = Size(side * clip.size.height, side * clip.size.width)

    def open(self) -> Image.Image:
        frames = self.clip.frames()
        sheet = Image.new("RGB", (self.size.width, self.size.height), "white")
        for number, frame in enumerate(frames):
            row, column = divmod(number, sheet_side(len(frames)))
            sheet.paste(frame, (column * frame.width, row * frame.height))
        return sheet


def check_sheet(picture: Picture, frames: int | None, where: str) -> None:
    """Raise DataError for a clip, or a sheet of another number of frames, where sheets of `frames` are wanted."""
    if frames is None:
        return
    if isinstance(picture, Clip):
        raise DataError(
            f"{where} has a clip where this model's image tokenizer makes codes of sheets of {frames} frames; "
            "data source 'films' makes those of clips",
            "no sheet",
        )
    if isinstance(picture, ClipSheet) and picture.clip.length != frames:
        raise DataError(
            f"{where} has a clip of {picture.clip.length} frames, but this model's image tokenizer makes codes of "
            f"{frames}; set its frames, or those of the data, to the same number",
            "frames",
        )


def sheet_side(frames: int) -> int:
    """How many cells a side of the sheet of so many frames has."""
    return ceil(sqrt(frames))


def pixels(picture: Picture, size: Size) -> Float[Tensor, "3 h w"]:
    """A picture stretched to a size."""
    return _stretched(picture.open(), size)


def clip_pixels(clip: Clip, size: Size) -> Float[Tensor, "t 3 h w"]:
    """The frames of a clip stretched to a size."""
    return torch.stack([_stretched(frame, size) for frame in clip.frames()])


def _stretched(image: Image.Image, size: Size) -> Float[Tensor, "3 h w"]:
    return cut(image, View((0, 0, image.width, image.height), size))
