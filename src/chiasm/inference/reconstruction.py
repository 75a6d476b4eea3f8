"""What an image tokenizer makes of an image: its codes, and the image again, at each scale where it has several."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from chiasm.data.sample import Picture
from chiasm.errors import ChiasmError
from chiasm.inference.drawing import decode, to_images
from chiasm.inference.kernels import inference_mode
from chiasm.inference.preview import DecodesScales
from chiasm.inference.reading import CodeReader
from chiasm.nn.generators import Generators
from chiasm.tokenizers.spaces import Codes

if TYPE_CHECKING:
    from chiasm.model import Model


class AtScale(NamedTuple):
    """An image from so many codes or vectors. psnr: in dB, of its pixels and those that the tokenizer sees."""

    image: Image.Image
    positions: int
    psnr: float


class Reconstruction(NamedTuple):
    """original: the image as the tokenizer sees it. target: its codes or vectors. decoded: the coarsest first."""

    original: Image.Image
    target: Tensor
    decoded: list[AtScale]


@inference_mode
def reconstruct(model: Model, picture: Picture) -> Reconstruction:
    """Raises ChiasmError for a model without an image tokenizer, or without a decoder of what it makes."""
    tokenizer = model.image_tokenizer
    if tokenizer is None or model.conditions or model.image_decoder is None:
        raise ChiasmError("this model has no image tokenizer that makes images again of what it encodes")
    reader = CodeReader(model)
    pixels, target = reader.target(picture).to(model.device), reader.codes_of(picture)
    images = [(target.shape[0] * target.shape[1], decode(model, target[None], Generators([0]))[0])]
    space = tokenizer.space
    if isinstance(space, Codes) and space.scales is not None and isinstance(tokenizer, DecodesScales):
        ends = [
            sum(rows * columns for rows, columns in space.scales[:i]) for i in range(1, len(space.scales))
        ]
        images = [(end, tokenizer.decode_scales(target[None, :, :end])[0]) for end in ends] + images
    decoded = [AtScale(to_images(each[None])[0], count, _psnr(each, pixels)) for count, each in images]
    return Reconstruction(to_images(pixels[None])[0], target, decoded)


def _psnr(image: Float[Tensor, "3 h w"], original: Float[Tensor, "3 h w"]) -> float:
    """Of one size, which is the image's: a decoder may make images of another."""
    image = image.float().clamp(0, 1)
    if image.shape != original.shape:
        original = torch.nn.functional.interpolate(
            original[None].float(), size=image.shape[-2:], mode="bilinear", antialias=True
        )[0]
    error = (image - original.float()).square().mean().clamp(min=1e-10)
    return float(-10 * error.log10())
