"""Images that are not whole yet: what their head has drawn of them so far, as pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional

from chiasm.heads import DrawingState
from chiasm.inference.drawing import decode, to_images
from chiasm.inference.requests import Wish
from chiasm.nn.generators import Generators
from chiasm.tokenizers.spaces import Codes

if TYPE_CHECKING:
    from chiasm.model import Model

GREY = 0.5  # where nothing is drawn yet

Result = TypeVar("Result")


class Unfinished(NamedTuple):
    """An image that is not whole yet, among the pieces of an answer."""

    image: Image.Image


class Previews:
    """Some images of the first of those that are drawn, not whole yet, evenly spread over its drawing.

    count: how many.
    """

    def __init__(self, model: Model, progress: DrawingState, generators: Generators | None, count: int):
        self.model, self.progress, self.generators = model, progress, generators
        self._due = deque(each / (count + 1) for each in range(1, count + 1))

    def take(self) -> Image.Image | None:
        """The next, if as much is drawn; to be asked between two steps."""
        share = share_drawn(self.model, self.progress) if self._due else 0.0
        if not self._due or share < self._due[0] or share == 1:
            return None
        while self._due and self._due[0] <= share:
            self._due.popleft()
        pixels = preview(self.model, self.progress, self.generators)
        return None if pixels is None else to_images(pixels[:1])[0]


def watched(steps: Generator[Wish, Any, Result], look: Callable[[], None]) -> Generator[Wish, Any, Result]:
    """The same steps of a request, with a look before each wish."""
    answer = None
    with closing(steps):
        while True:
            try:
                wish = steps.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            look()
            answer = yield wish


@runtime_checkable
class DecodesScales(Protocol):
    """An image tokenizer that makes images of its coarsest scales alone."""

    def decode_scales(self, codes: Int[Tensor, "n 1 l"]) -> Float[Tensor, "n 3 h w"]: ...


def share_drawn(model: Model, progress: DrawingState) -> float:
    """How much of the images is there, from 0 to 1: of their scales, or of their cells."""
    space = _space(model)
    if space is None or progress.values is None:
        return 0.0
    if space.scales is not None:
        return progress.steps / len(space.scales)
    drawn = _drawn(progress.values, space).float()
    if progress.retained is None:
        return float(drawn.mean())
    return float(drawn[:, progress.retained.redrawn.to(drawn.device)].mean())


def preview(
    model: Model, progress: DrawingState, generators: Generators | None
) -> Float[Tensor, "n 3 h w"] | None:
    """Images as far as they are drawn: cell by cell, on grey, or at the scales that are there, coarse but whole.
    What stays of an image that is edited is there from the first.

    None: nothing is drawn, or nothing can be shown before the end (an image of a variable number of codes, or a
    decoder that makes nothing of some scales alone).
    """
    space, values = _space(model), progress.values
    if space is None or values is None:
        return None
    if space.scales is not None:
        tokenizer = model.image_tokenizer
        return tokenizer.decode_scales(values[:, None]) if isinstance(tokenizer, DecodesScales) else None
    drawn = _drawn(values, space)
    codes = functional.pad(values, (0, space.length - values.shape[1])).where(drawn, 0)
    if progress.retained is not None:
        stays = ~progress.retained.redrawn.to(values.device)
        codes, drawn = torch.where(stays, progress.retained.values.to(values), codes), drawn | stays
    pixels = decode(model, codes.unflatten(1, space.grid), generators)
    cells = drawn.unflatten(1, space.grid)[:, None].float()
    return torch.where(functional.interpolate(cells, size=pixels.shape[-2:]) > 0, pixels, GREY)


def _space(model: Model) -> Codes | None:
    """The space of what is drawn, where a part of it can be shown."""
    space = model.image_head.space if model.image_head is not None else None
    return space if isinstance(space, Codes) and space.end is None else None


def _drawn(values: Int[Tensor, "n m"], space: Codes) -> Bool[Tensor, "n k"]:
    """Which cells hold a code: those drawn one by one come first, a mask is no code."""
    return functional.pad(values < space.size, (0, space.length - values.shape[1]))
