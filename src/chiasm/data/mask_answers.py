"""Masks as answers of a model without a mask head: in words, or as an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from chiasm.data.mask_records import WHITE
from chiasm.data.mask_texts import MASK_TEXTS, Mask
from chiasm.data.sample import Masks, Message, Picture, Sample
from chiasm.errors import DataError
from chiasm.views import Size

MaskForm = Literal["head", "polygons", "runs", "image"]
MaskSide = Annotated[int, Field(ge=4, le=1000)]
ANSWER = "mask_answer"  # where the truth of a sample has it


@dataclass(frozen=True)
class MaskAnswer:
    """What a question that asks for masks is answered with. size: of the image. side: see `mask_texts`."""

    masks: Masks
    size: Size
    form: Literal["polygons", "runs", "image"]
    side: int

    @property
    def mask(self) -> Mask:
        """All that is asked for."""
        return union(self.masks)

    def content(self) -> str | Picture:
        """The answer itself."""
        if self.form == "image":
            return MaskPicture(self.masks, self.size)
        return MASK_TEXTS[self.form].write(self.mask, self.side)

    def read(self, answer: str | Image.Image) -> Mask | None:
        """The mask that an answer means; None for words that mean none."""
        if isinstance(answer, str):
            return MASK_TEXTS[self.form].read(answer, self.side, self.size)
        image = answer.convert("L").resize((self.size.width, self.size.height), Image.Resampling.BILINEAR)
        return np.asarray(image) >= WHITE


class MaskPicture(Picture):
    """What masks cover in white, the rest in black."""

    def __init__(self, masks: Masks, size: Size):
        self.masks, self.size = masks, size

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        pixels = np.packbits(union(self.masks)).tobytes()
        return blake2b(f"mask {self.size}".encode() + pixels, digest_size=16).hexdigest()

    def open(self) -> Image.Image:
        return Image.fromarray(union(self.masks)).convert("RGB")


def union(masks: Masks) -> Mask:
    """What any of the masks covers."""
    covered: Mask = np.logical_or.reduce(masks.open(), axis=0)
    return covered


def answer_with_masks(sample: Sample, form: MaskForm, side: int) -> Sample:
    """A sample that asks for masks, with an answer of a form in their place; raises DataError naming the sample."""
    if sample.masks is None:
        return sample
    if sample.messages[-1].role == "assistant":
        raise DataError(
            f"{sample.name} has masks and an answer besides; it must end with the question that the masks answer",
            "masks",
        )
    if form == "head":
        return sample
    read = [c for m in sample.messages if m.role != "assistant" for c in m.content if isinstance(c, Picture)]
    answer = MaskAnswer(sample.masks, read[-1].size, form, side)
    messages = (*sample.messages, Message("assistant", (answer.content(),)))
    return replace(sample, messages=messages, truth={**sample.truth, ANSWER: answer}, masks=None)
