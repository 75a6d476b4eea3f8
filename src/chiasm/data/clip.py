"""Moving pictures as data, and pictures as pixels."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from chiasm.data.cut import cut
from chiasm.data.sample import Picture
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


def pixels(picture: Picture, size: Size) -> Float[Tensor, "3 h w"]:
    """A picture stretched to a size."""
    return _stretched(picture.open(), size)


def clip_pixels(clip: Clip, size: Size) -> Float[Tensor, "t 3 h w"]:
    """The frames of a clip stretched to a size."""
    return torch.stack([_stretched(frame, size) for frame in clip.frames()])


def _stretched(image: Image.Image, size: Size) -> Float[Tensor, "3 h w"]:
    return cut(image, View((0, 0, image.width, image.height), size))
