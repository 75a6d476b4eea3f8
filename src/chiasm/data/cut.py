"""The pixels of a view."""

import math
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from chiasm.data.images import opaque
from chiasm.views import GREY, View

__all__ = ["GREY", "cut"]

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def cut(
    original: Image.Image, view: View, *, padding: tuple[int, int, int] | None = None
) -> Float[Tensor, "3 h w"]:
    """The part of a picture that a view looks at: RGB in [0, 1], resized as the view says.

    padding: colour (0 to 255) of what lies beyond the picture; default: the view's. What is transparent is seen
    on white.
    """
    if view.via is not None:
        large = cut(original, replace(view, size=view.via, via=None), padding=padding)
        return functional.interpolate(large[None], tuple(view.size), mode="bicubic")[0].clamp(0, 1)
    image, method = opaque(original, "the picture"), FILTERS[view.filter]
    padding = view.padding if padding is None else padding
    left, top, right, bottom = view.box
    # One axis after the other, as PIL does inside. The padded axis comes last, so that a picture of 10x20000
    # is never blown up to 20000x20000.
    if left < 0 or right > image.width:
        image = _resize_rows(image, top, bottom, view.size.height, padding, method)
        image = _resize_columns(image, left, right, view.size.width, padding, method)
    else:
        image = _resize_columns(image, left, right, view.size.width, padding, method)
        image = _resize_rows(image, top, bottom, view.size.height, padding, method)
    return rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w").contiguous().float() / 255


def _resize_columns(
    image: Image.Image,
    left: float,
    right: float,
    width: int,
    padding: tuple[int, int, int],
    method: Image.Resampling,
) -> Image.Image:
    before, after = max(0, math.ceil(-left)), max(0, math.ceil(right - image.width))
    if before or after:
        canvas = Image.new("RGB", (before + image.width + after, image.height), padding)
        canvas.paste(image, (before, 0))
        image = canvas
    box = (left + before, 0, right + before, image.height)
    return image.resize((width, image.height), method, box=box)


def _resize_rows(
    image: Image.Image,
    top: float,
    bottom: float,
    height: int,
    padding: tuple[int, int, int],
    method: Image.Resampling,
) -> Image.Image:
    before, after = max(0, math.ceil(-top)), max(0, math.ceil(bottom - image.height))
    if before or after:
        canvas = Image.new("RGB", (image.width, before + image.height + after), padding)
        canvas.paste(image, (0, before))
        image = canvas
    box = (0, top + before, image.width, bottom + before)
    return image.resize((image.width, height), method, box=box)
