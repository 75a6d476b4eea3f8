"""Packed documents to batches with their pictures: as pixels, or as what the caches have of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from chiasm.data.assembly import Assembly
from chiasm.data.contract import Contract
from chiasm.data.cut import cut
from chiasm.data.files import Decoded
from chiasm.data.sample import Picture
from chiasm.data.signals import OpenedSignal, open_signals, values_of
from chiasm.errors import DataError
from chiasm.sequence import Document, Kind, PackedBatch, ReadImages, Slot, WrittenImages, WrittenMasks
from chiasm.storage.cache import TensorCache
from chiasm.views import GREY, View

COVERED = 0.5  # share from which on a pixel of a resized mask is of the mask


class PictureReader:
    """Opens the pictures of a batch: as pixels, or as cached features and codes where those exist.

    broken: why pictures that the caches should have cannot be read, by key.
    """

    def __init__(
        self,
        contract: Contract,
        features: TensorCache | None = None,
        codes: TensorCache | None = None,
        broken: Mapping[str, DataError] | None = None,
    ):
        self.contract = contract
        self.features = features
        self.codes = codes
        self.broken = broken or {}

    def decoded(self, document: Document) -> Document:
        """The document, its signals opened, and its pictures decoded where `attach` will need that.

        Raises DataError for a broken one.
        """
        signals = [
            replace(slot, signal=OpenedSignal(slot.signal, values_of(self.contract, slot.signal).numpy()))
            for slot in document.signals
        ]
        slots = []
        for slot in document.slots:
            if slot.masks is not None:
                slots.append(slot)
                continue
            encoded = slot.kind == Kind.WRITTEN or self.contract.shown is not None
            cache = self.codes if encoded else self.features
            if cache is None:
                slot = replace(slot, picture=Decoded(slot.picture))
            else:
                self.check(slot)
            slots.append(slot)
        return replace(document, slots=slots, signals=signals)

    def check(self, slot: Slot) -> None:
        """Raise DataError where one of its pictures cannot be read."""
        for picture in (slot.picture, slot.source):
            if picture is not None and picture.key in self.broken:
                raise self.broken[picture.key]

    def attach(self, batch: PackedBatch, slots: Sequence[tuple[int, Slot]]) -> PackedBatch:
        """Put the pictures of `slots` (flat start, slot) into the batch, and open its signals."""
        batch.signals = open_signals(self.contract, batch.unopened, Kind.READ)
        batch.written.signals = open_signals(self.contract, batch.unopened, Kind.WRITTEN)
        batch.unopened = []
        read = [(start, slot) for start, slot in slots if slot.kind == Kind.READ]
        masked = [(start, slot) for start, slot in slots if slot.masks is not None]
        written = [(start, slot) for start, slot in slots if slot.kind == Kind.WRITTEN and slot.masks is None]
        if self.contract.shown is not None:
            batch.shown = self._written(read) if read else None
        elif read:
            assembly = Assembly(self.contract, [slot.picture for _, slot in read])
            batch.read = self._read(read, assembly)
            batch.written.mask = self._masks(masked, assembly) if masked else None
        if written:
            batch.written.image = self._conditioned(self._written(written), written)
        return batch

    def _read(self, slots: Sequence[tuple[int, Slot]], assembly: Assembly) -> ReadImages:
        crops = self._crops([slot.picture for _, slot in slots])
        for start, slot in slots:
            assembly.place(slot, start)
        groups = [torch.stack([crops[p.key, view] for p, view in group.views]) for group in assembly.groups]
        return assembly.images(groups, encoded=self.features is not None)

    def _masks(self, slots: Sequence[tuple[int, Slot]], assembly: Assembly) -> WrittenMasks:
        return WrittenMasks(
            [self.mask_targets(slot) for _, slot in slots],
            [start for start, _ in slots],
            [slot.question for _, slot in slots],
            [assembly.view_of(slot.picture) for _, slot in slots],
        )

    def mask_targets(self, slot: Slot) -> Tensor:
        """The masks of a slot (m h w), cut as the view of its image is."""
        assert slot.masks is not None
        (view, _), *_ = self.contract.read_views(slot.picture.size, f"image {slot.picture.key}")
        covered = [
            cut(Image.fromarray(mask).convert("RGB"), view, padding=(0, 0, 0))[0] >= COVERED
            for mask in slot.masks.open()
        ]
        return torch.stack(covered) if covered else torch.zeros(0, *view.size, dtype=torch.bool)

    def _crops(self, pictures: Sequence[Picture]) -> dict[tuple[str, View], Tensor]:
        """Pixels or features by picture and view; a picture is hashed, opened and cut before the next is read."""
        crops: dict[tuple[str, View], Tensor] = {}
        known: set[str] = set()
        for picture in pictures:
            key = picture.key
            if key not in known:
                known.add(key)
                views = [view for view, _ in self.contract.read_views(picture.size, f"picture {key}")]
                crops |= {(key, view): each for view, each in zip(views, self.crops(picture, views))}
        return crops

    def _written(self, slots: Sequence[tuple[int, Slot]]) -> WrittenImages:
        starts = torch.tensor([start for start, _ in slots])
        pictures = [slot.picture for _, slot in slots]
        return WrittenImages(self._targets(pictures), self.codes is not None, starts)

    def _targets(self, pictures: Sequence[Picture]) -> Tensor:
        """Pixels, or what the cache has, of pictures as they are written."""
        if self.codes is None:
            return torch.stack([self.target(picture) for picture in pictures])
        return cached_targets(self.codes, pictures)

    def _conditioned(self, written: WrittenImages, slots: Sequence[tuple[int, Slot]]) -> WrittenImages:
        """With the words for which images are drawn, and the images that they come of, where the model has such."""
        span = self.contract.span
        if span is not None and span.words:
            written = replace(written, words=_captions(slots, span.words))
        if self.contract.changes_images:
            sources = [slot.source for _, slot in slots if slot.source is not None]
            written = replace(written, sources=self._targets(sources))
        return written

    def crops(self, picture: Picture, views: Sequence[View]) -> list[Tensor]:
        """Pixels or features of some views of a picture."""
        if self.features is not None:
            return [each.float() for each in cached(self.features, [view_key(picture, v) for v in views])]
        image = picture.open()
        return [cut(image, view) for view in views]

    def target(self, picture: Picture) -> Tensor:
        """Pixels (3 h w) of a picture at the image tokenizer's size."""
        assert self.contract.written_size is not None
        height, width = picture.size
        return cut(picture.open(), View((0, 0, width, height), self.contract.written_size))


def _captions(slots: Sequence[tuple[int, Slot]], most: int) -> Int[Tensor, "n k"]:
    """The flat positions of the words for which images are drawn."""
    places = torch.full((len(slots), most), -1)
    for row, (start, slot) in enumerate(slots):
        before, count = slot.caption
        places[row, :count] = torch.arange(start - before, start - before + count)
    return places


def view_key(picture: Picture, view: View) -> str:
    """Key of a view's features in the cache."""
    box = ",".join(f"{edge:g}" for edge in view.box)
    padding = "" if view.padding == GREY else f"/{view.padding}"
    filtering = "" if view.filter == "bicubic" else f"/{view.filter}"
    filtering += "" if view.via is None else f"/via {view.via.height}x{view.via.width}"
    return f"{picture.key}/{box}/{view.size.height}x{view.size.width}{padding}{filtering}"


def cached(cache: TensorCache, keys: Sequence[str]) -> list[Tensor]:
    """The tensors of all keys; raises DataError for one that the cache lacks."""
    tensors = cache.get(keys)
    missing = [key for key, tensor in zip(keys, tensors, strict=True) if tensor is None]
    if missing:
        raise DataError(
            f"the cache lacks {len(missing)} pictures, the first of them {missing[0]}; prepare it first"
        )
    return [tensor for tensor in tensors if tensor is not None]


def cached_targets(cache: TensorCache, pictures: Sequence[Picture]) -> Tensor:
    """The codes, vectors or latents of pictures, stacked; codes as torch's indices."""
    targets = torch.stack(cached(cache, [picture.key for picture in pictures]))
    return targets if targets.is_floating_point() else targets.long()
