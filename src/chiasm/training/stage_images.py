"""Which images a stage will use: those of all its data, or those of the batches that it gets to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chiasm.data import Picture, Sample, Source
from chiasm.data.documents import Contract
from chiasm.data.picture_reader import PictureReader, view_key
from chiasm.distribution.processes import Ranks
from chiasm.errors import DataError
from chiasm.recipe import Stage
from chiasm.sequence import Document, Kind
from chiasm.training.batches import DocumentBatches
from chiasm.training.mixture import item_key
from chiasm.views import View

TRIAL_BATCHES = 4  # after which it is guessed whether the stage will see all of its data


@dataclass
class StageImages:
    """The images of a stage by the keys of what is computed of them: views to read, and images to write.

    Where those come of other images by a change, these are among them.
    """

    read: dict[str, tuple[Picture, View]] = field(default_factory=dict)
    written: dict[str, Picture] = field(default_factory=dict)

    def add(self, contract: Contract, image: Picture, kind: Kind, source: Picture | None = None) -> None:
        if kind == Kind.WRITTEN or contract.shown is not None:
            for each in (image, source) if contract.changes_images else (image,):
                if each is not None:
                    self.written.setdefault(each.key, each)
        else:
            for view, _ in contract.read_views(image.size, f"image {image.key}"):
                self.read.setdefault(view_key(image, view), (image, view))

    def add_all(self, contract: Contract, sample: Sample) -> None:
        last: Picture | None = None
        for message in sample.messages:
            kind = Kind.WRITTEN if message.role == "assistant" else Kind.READ
            for item in message.content:
                if isinstance(item, Picture):
                    self.add(contract, item, kind, last)
                    last = item


def stage_images(
    batches: DocumentBatches, sources: Mapping[str, Source], stage: Stage, ranks: Ranks
) -> tuple[StageImages, bool]:
    """The images that a stage will use; True: all ranks have the same ones.

    When the stage will get round to all groups of its data, these are the images of all of them; else
    the stage's batches are packed once, without images, to find out.
    """
    contract = batches.contract
    count = stage.steps * stage.accumulate
    trial = min(TRIAL_BATCHES, count)
    images = StageImages()

    def pack(times: int) -> None:
        for _ in range(times):
            for _, slot in batches.pack()[1]:
                images.add(contract, slot.picture, slot.kind, slot.source)

    pack(trial)
    groups = batches.state()["groups"]
    if ranks.any(any(groups[name] * ranks.world * count / trial < len(sources[name]) for name in groups)):
        pack(count - trial)
        return images, False
    images = StageImages()
    for name in groups:
        left_out = batches.mixture.left_out.get(name, {})
        for index in range(len(sources[name])):
            try:
                for number, sample in enumerate(sources[name][index]):
                    if item_key(index, number) not in left_out:
                        images.add_all(contract, sample)
            except DataError:  # met again, and counted, when the sample's turn comes
                if sources[name].broken == "error":
                    raise
    return images, True


class Listing(PictureReader):
    """Opens no image: for finding out which images a stage uses."""

    def decoded(self, document: Document) -> Document:
        for slot in document.slots:
            self.check(slot)
        return document
