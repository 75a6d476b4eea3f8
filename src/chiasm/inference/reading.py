"""What stands in the documents of requests: images know their codes where a model has drawn them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Picture
from chiasm.distribution.devices import fitting
from chiasm.inference.requests import Extend
from chiasm.sequence import Document, Kind, PackedBatch, Slot, WrittenImages, pack

if TYPE_CHECKING:
    from chiasm.model import Model

CODES = "codes"  # of the `info` of an image that was drawn: what its head has drawn
CLOSE = 0.01  # of a vector's length, by which different numbers of rows may move it in half precision


class CodedImage(Picture):
    """An image with the codes or vectors that stand for it, so that it need not be encoded."""

    def __init__(self, image: Picture, codes: Tensor):
        self.image, self.codes = image, codes
        self.key, self.size = image.key, image.size

    @cached_property
    def code_key(self) -> str:
        """What tells these codes from others that stand for an image of the same pixels."""
        codes = self.codes.detach().cpu()
        numbers = (codes.float() if codes.is_floating_point() else codes.long()).contiguous().numpy()
        return hashlib.sha256(f"{numbers.shape}".encode() + numbers.tobytes()).hexdigest()

    def open(self) -> Image.Image:
        return self.image.open()


class CodeReader(PictureReader):
    """Encodes images that stand in the sequence as targets one by one, so that they depend on no neighbour."""

    def __init__(self, model: Model):
        super().__init__(model.contract)
        self.model = model

    def _written(self, slots: Sequence[tuple[int, Slot]]) -> WrittenImages:
        codes = [self.codes_of(slot.picture) for _, slot in slots]
        return WrittenImages(torch.stack(codes), True, torch.tensor([start for start, _ in slots]))

    def codes_of(self, picture: Picture) -> Tensor:
        """What stands for an image where it is written: codes or vectors."""
        if self.model.conditions:
            return torch.zeros(())  # nothing of it stands in the sequence
        if isinstance(picture, CodedImage):
            return picture.codes.to(self.model.device)
        assert self.model.image_tokenizer is not None
        pixels = fitting(self.target(picture)[None].to(self.model.device), self.model.image_tokenizer)
        return self.model.image_tokenizer.encode(pixels)[0]


def in_rows(model: Model, documents: Sequence[Document], reader: PictureReader | None = None) -> PackedBatch:
    """A batch with each document in a row of its own, its images opened, on the model's device."""
    batch, slots = pack([[each] for each in documents])
    return (reader or PictureReader(model.contract)).attach(batch, slots).to(model.device)


def suffix(model: Model, reader: PictureReader, document: Document, start: int) -> Extend:
    """What stands in a document from a position on, behind a row that has read it up to there.

    No image that is cross-attended may stand there.
    """
    return suffixes(model, reader, [document], [start])[0]


def suffixes(
    model: Model, reader: PictureReader, documents: Sequence[Document], starts: Sequence[int]
) -> list[Extend]:
    """`suffix` of each document."""
    unread = [each.behind(start) for each, start in zip(documents, starts, strict=True)]
    batch = in_rows(model, unread, reader)
    embeddings = model.embed(batch).embeddings
    return [
        Extend(
            embeddings[row : row + 1, : len(each)],
            [Kind(kind) for kind in each.kinds],
            each.opens,
            each.exposed,
            batch.coordinates[row, : len(each)].tolist(),
        )
        for row, each in enumerate(unread)
    ]


def same(some: Float[Tensor, "n s d"], others: Float[Tensor, "n s d"]) -> bool:
    """Whether embeddings stand for the same, but for the last bits."""
    return bool(((some - others).norm(dim=-1) <= CLOSE * others.norm(dim=-1)).all())
