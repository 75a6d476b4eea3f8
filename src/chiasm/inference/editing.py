"""Images that follow from images and words: a part drawn anew under a mask, or all of it after an instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor
from torch.nn import functional

from chiasm.data.documents import draw_prompt
from chiasm.data.files import EncodedPicture
from chiasm.data.images import opacity, open_image
from chiasm.data.references import ImageLike, References, pictures_of
from chiasm.data.sample import Message, Picture, Sample
from chiasm.errors import ChiasmError, DataError, naming
from chiasm.inference.drawing import EditedImage, draw_images
from chiasm.inference.negatives import negative_of
from chiasm.inference.options import sampling_of
from chiasm.nn.generators import check_count, seeds_of
from chiasm.sequence import Document
from chiasm.tokenizers.spaces import Codes

if TYPE_CHECKING:
    from chiasm.model import Model


class ImageEdit(NamedTuple):
    """The prompt of an edit, and what stays of its image; None = all of it is drawn."""

    prompt: Document
    original: EditedImage | None


def edit(
    model: Model,
    images: ImageLike | Sequence[ImageLike],
    prompt: str,
    *,
    mask: ImageLike | None = None,
    count: int = 1,
    seed: int = 0,
    guidance: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    negative: str | None = None,
) -> list[Image.Image]:
    """Draw a part of an image anew, or all of it.

    With a mask the prompt says what shall be seen, as for `generate`, and the image keeps its codes (or vectors)
    but in the cells that the mask touches: those are drawn anew. Without one the model reads the image, or several,
    and then the prompt, an instruction, as samples of editing have it, and draws all of the answer.

    images: PIL objects, bytes or paths.
    mask: an image of the same size; where it is fully transparent, new is drawn.
    count: images that are drawn: of the seed, the seed after it, and so on.
    negative: words that guidance leads away from, behind the same images; None = the empty prompt.
    Raises ChiasmError for a model that cannot, and DataError for an image or a mask that does not fit.
    """
    options = sampling_of(model, guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p)
    seeds = seeds_of(seed, 1, check_count(count))
    pictures = pictures_of(images, "the edit")
    wanted = edit_of(model, pictures, prompt, mask)
    negative_prompt = negative_of(model, negative, options.guidance, pictures if mask is None else ())
    return draw_images(
        model, [wanted.prompt] * count, seeds, options.of_images, wanted.original, negative_prompt
    )


def edit_of(model: Model, images: Sequence[Picture], prompt: str, mask: ImageLike | None) -> ImageEdit:
    """Raises ChiasmError for a model that cannot, and DataError for an image or a mask that does not fit."""
    contract = model.contract
    if model.image_head is None:
        raise ChiasmError("this model has no image head: it cannot draw")
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError.of("prompt", "it is empty: there is nothing to draw")
    if not images:
        raise DataError.of("image", "there is none to edit")
    if mask is None:
        if not model.sees:
            raise ChiasmError.of("image", "this model reads no images: it edits only under a mask")
        sample = Sample("the edit", (Message("user", (*images, prompt)),))
        return ImageEdit(draw_prompt(contract, sample), None)
    if len(images) > 1:
        raise DataError.of("mask", f"it is of one image, and there are {len(images)}")
    grid = _grid(model)
    with naming("mask"):
        redrawn = cells(transparent_pixels(mask, images[0]), grid)
    sample = Sample("the edit", (Message("user", (prompt,)),))
    return ImageEdit(draw_prompt(contract, sample), EditedImage(images[0], redrawn))


def cells(pixels: Bool[np.ndarray, "h w"], grid: tuple[int, int]) -> Bool[Tensor, "gh gw"]:
    """The cells of a grid over an image in which any of these pixels lies."""
    touched = functional.adaptive_max_pool2d(torch.from_numpy(pixels)[None].float(), grid)[0]
    return touched > 0


def transparent_pixels(mask: ImageLike, image: Picture) -> Bool[np.ndarray, "h w"]:
    """The transparent pixels of a mask; raises DataError for one that does not fit its image."""
    where = "mask: the image"
    if isinstance(mask, Image.Image):
        alpha = opacity(mask, where)
    else:
        picture = References().picture(mask, "mask")
        if not isinstance(picture, EncodedPicture):
            raise DataError.of("mask", "an image in memory is given as a PIL object")
        alpha = opacity(open_image(picture.data(), where), where)
    if alpha is None:
        raise DataError(f"{where} has no transparency; transparent is what shall be drawn anew", "mask")
    pixels = alpha == 0
    if pixels.shape != tuple(image.size):
        (height, width), (own, across) = image.size, pixels.shape
        raise DataError.of("mask", f"it has {across} x {own} pixels, and the image {width} x {height}")
    if not pixels.any():
        raise DataError.of("mask", "no pixel of it is fully transparent: nothing would be drawn anew")
    return pixels


def _grid(model: Model) -> tuple[int, int]:
    """Rows and columns of the values of an image; raises ChiasmError for a head that cannot keep some of them."""
    head = model.image_head
    assert head is not None
    space = head.space
    if model.conditions or model.image_tokenizer is None:
        reason = "what it writes are conditions of a decoder, which stand at no places of an image"
    elif isinstance(space, Codes) and (space.scales is not None or space.end is not None):
        reason = (
            f"codes of the image tokenizer {model.image_tokenizer.name!r} stand for more than their own place"
        )
    elif not head.edits:
        reason = "it draws all of an image; orders 'masked' and 'raster' keep what they shall"
    else:
        return space.grid[0], space.grid[1]
    raise ChiasmError.of(
        "mask", f"the image head (order {head.name!r}) cannot keep a part of an image: {reason}"
    )
