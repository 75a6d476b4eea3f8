"""The batches of a stage: packed documents, or pictures, with or without words. See `chiasm.training.feed`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.data import Media, Picture, Sample, Signal, Source
from chiasm.data.clip import Clip, check_sheet, clip_pixels, pixels
from chiasm.data.cut import cut
from chiasm.data.documents import Contract, document, reads_picture, writes_picture
from chiasm.data.picture_reader import PictureReader
from chiasm.decoders import ImageDecoder
from chiasm.errors import DataError
from chiasm.objectives import Described
from chiasm.recipe import Stage
from chiasm.sequence import Document, PackedBatch, Packer, Slot
from chiasm.tokenizers import ImageTokenizer, VideoTokenizer
from chiasm.training.encoded_images import EncodedImages, EncodedReader
from chiasm.training.mixture import Item, LeftOut, Mixture, Origin, chance
from chiasm.views import Size, View

Result = TypeVar("Result")
Packed = tuple[PackedBatch, list[tuple[int, Slot]]]


class DocumentBatches:
    """Packed batches of a stage's documents.

    Which documents lose their prompt (for classifier-free guidance) or their pictures (`blind`) depends on the
    seed and the document alone.

    Args:
        unconditional: share of the documents that write a picture which follow an empty prompt.
        reader: opens the pictures.
    """

    def __init__(
        self,
        contract: Contract,
        sources: Mapping[str, Source],
        stage: Stage,
        *,
        seed: int,
        unconditional: float = 0.0,
        reader: PictureReader | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        self.contract, self.stage, self.unconditional = contract, stage, unconditional
        self.reader = reader or PictureReader(contract)
        self.key = f"{seed}/{stage.name}"
        self.mixture: Mixture[Sample] = Mixture(sources, stage.data, self.key, list, rank, world)
        self.state, self.restore = self.mixture.state, self.mixture.restore
        self._peeked: tuple[Origin, Document] | None = None  # what did not fit into the last batch

    def next(self) -> PackedBatch:
        return self.fill(self.pack())

    def fill(self, packed: Packed) -> PackedBatch:
        return self.reader.attach(*packed)

    def pack(self) -> Packed:
        """The next batch, and the pictures to attach to it (flat start, slot)."""
        packer = Packer(self.stage.rows, self.stage.length, self.stage.pictures)
        while True:
            origin, sample = self.mixture.peek()
            try:
                if not packer.offer(self._readable(origin, sample)):
                    return packer.pack()
            except DataError as error:
                self.mixture.skip(error)
            else:
                self.mixture.advance()

    def check(self, *, decode: bool = False) -> LeftOut:
        """The samples from outside that this stage cannot use; images are measured, or decoded too."""
        room = min(self.contract.context, self.stage.length)

        def usable(sample: Sample) -> None:
            Packer(1, room).offer(document(self.contract, sample))
            for media in (c for m in sample.messages for c in m.content if decode and isinstance(c, Media)):
                media.open()

        return self.mixture.check(usable)

    def _readable(self, origin: Origin, sample: Sample) -> Document:
        """The document of a sample; where broken ones are skipped, all of its images can be read.

        They are decoded before the document is packed, for which documents share a batch may not depend on what is
        found out later.
        """
        if self._peeked is None or self._peeked[0] != origin:
            packed = self._document(origin, sample)
            self._peeked = (origin, self.reader.decoded(packed) if self.mixture.skips else packed)
        return self._peeked[1]

    def _document(self, origin: Origin, sample: Sample) -> Document:
        writes = writes_picture(sample)
        key = (self.key, origin.source, origin.epoch, origin.group, origin.number)
        return document(
            self.contract,
            sample,
            unconditional=writes and chance("unconditional", *key) < self.unconditional,
            blind=not writes
            and sample.masks is None
            and reads_picture(sample)
            and chance("blind", *key) < self.stage.blind,
        )


class PictureBatches:
    """Batches of images at the size of what learns from them: those that a group writes, else those that it reads.

    Of a clip a tokenizer of moving pictures gets all frames, any other the first.

    Args:
        reader: of what the caches have of the images; None = they are read as pixels.
    """

    def __init__(
        self,
        learner: ImageTokenizer | ImageDecoder,
        sources: Mapping[str, Source],
        stage: Stage,
        *,
        seed: int,
        reader: EncodedReader | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        self.size, self.reader = Size(learner.size, learner.size), reader
        self.moving, self.sheet = isinstance(learner, VideoTokenizer), learner.sheet
        self.stage = stage
        key = f"{seed}/{stage.name}"
        self.mixture: Mixture[Picture] = Mixture(sources, stage.data, key, pictures_of, rank, world)
        self.state, self.restore = self.mixture.state, self.mixture.restore

    def next(self) -> Float[Tensor, "n *t 3 h w"] | EncodedImages:
        return self.fill(self.pack())

    def pack(self) -> list[Picture | Tensor]:
        """The pictures of the next batch; where broken ones are skipped, which is found out so, their pixels."""
        return taken_of(self.mixture, self.stage.rows, self._checked)

    def fill(self, packed: list[Picture | Tensor]) -> Float[Tensor, "n *t 3 h w"] | EncodedImages:
        """Raises DataError where pictures and clips, or clips of different lengths, meet in one batch."""
        if self.reader is not None:
            return self.reader.read([each for each in packed if isinstance(each, Picture)])
        taken = [each if isinstance(each, Tensor) else self._pixels(each) for each in packed]
        lengths = {len(each) if each.ndim == 4 else 0 for each in taken}
        if len(lengths) > 1:
            named = ", ".join(f"clips of {n} frames" if n else "pictures" for n in sorted(lengths))
            raise DataError(
                f"stage {self.stage.name!r} mixes {named} in a batch; give each a stage of its own"
            )
        return torch.stack(taken)

    def check(self, *, decode: bool = False) -> LeftOut:
        """The pictures from outside that have no size, or cannot be decoded, and records without any."""
        return self.mixture.check(lambda each: each.open() if decode else each.size)

    def _checked(self, picture: Picture) -> Picture | Tensor:
        check_sheet(picture, self.sheet, f"image {picture.key}")
        return self._pixels(picture) if self.mixture.skips else picture

    def _pixels(self, picture: Picture) -> Tensor:
        if self.moving and isinstance(picture, Clip):
            return clip_pixels(picture, self.size)
        return pixels(picture, self.size)


def taken_of(mixture: Mixture[Item], count: int, use: Callable[[Item], Result]) -> list[Result]:
    """What `use` makes of the next items; those for which it raises DataError are skipped."""
    results: list[Result] = []
    while len(results) < count:
        item = mixture.peek()[1]
        try:
            results.append(use(item))
        except DataError as error:
            mixture.skip(error)
        else:
            mixture.advance()
    return results


def pictures_of(group: list[Sample]) -> list[Picture]:
    """The different pictures that a group writes; if it writes none, those that it reads."""
    written: dict[str, Picture] = {}
    read: dict[str, Picture] = {}
    for sample in group:
        for message in sample.messages:
            found = written if message.role == "assistant" else read
            found.update({item.key: item for item in message.content if isinstance(item, Picture)})
    return list((written or read).values())


class DescribedBatches:
    """Batches of pictures, as the encoder sees them, with what is said of each; for a stage with an objective."""

    def __init__(
        self,
        contract: Contract,
        sources: Mapping[str, Source],
        stage: Stage,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        self.contract, self.rows = contract, stage.rows
        key = f"{seed}/{stage.name}"
        self.mixture: Mixture[Sample] = Mixture(sources, stage.data, key, list, rank, world)
        self.state, self.restore = self.mixture.state, self.mixture.restore
        start = self.state()
        self.size = taken_of(self.mixture, 1, lambda each: self._view(describe(each).picture).size)[0]
        self.restore(start)

    def next(self) -> Described:
        return self.fill(self.pack())

    def pack(self) -> list[tuple[Description, Tensor | None]]:
        """What the next batch describes; where broken pictures are skipped, which is found out so, with pixels."""
        return taken_of(self.mixture, self.rows, self._described)

    def fill(self, packed: list[tuple[Description, Tensor | None]]) -> Described:
        described = [each for each, _ in packed]
        return Described(
            torch.stack(
                [self._pixels(each.picture) if pixels is None else pixels for each, pixels in packed]
            ),
            tuple(each.text for each in described),
            tuple(each.labels for each in described),
        )

    def check(self, *, decode: bool = False) -> LeftOut:
        """The samples from outside that describe no picture, or whose picture has no size, or cannot be decoded."""

        def usable(sample: Sample) -> None:
            picture = describe(sample).picture
            _ = picture.open() if decode else picture.size

        return self.mixture.check(usable)

    def _described(self, sample: Sample) -> tuple[Description, Tensor | None]:
        described = describe(sample)
        return described, self._pixels(described.picture) if self.mixture.skips else None

    def _pixels(self, picture: Picture) -> Tensor:
        return cut(picture.open(), self._view(picture))

    def labels(self) -> list[str]:
        """All names in the labels of the data."""
        found: set[str] = set()
        for source in self.mixture.sources.values():
            for sample in (sample for index in range(len(source)) for sample in source[index]):
                try:
                    found.update(describe(sample).labels)
                except DataError:  # left out, and counted, when its turn comes
                    if source.broken == "error":
                        raise
        return sorted(found)

    def _view(self, picture: Picture) -> View:
        view = self.contract.read_views(picture.size, f"picture {picture.key}")[0][0]
        if view.size != getattr(self, "size", view.size):
            raise DataError(
                f"an objective needs views of one size, but picture {picture.key} is seen as "
                f"{view.size.height}x{view.size.width} and others as {self.size.height}x{self.size.width}; "
                "use views of type 'whole'"
            )
        return view


class Description(NamedTuple):
    """A picture that is read, what is said of it, and the names of what is in it (else the words said)."""

    picture: Picture
    text: str
    labels: tuple[str, ...]


def describe(sample: Sample) -> Description:
    """The picture that a sample shows with what it says of it; raises DataError unless it is one and one."""
    where = (
        f"{sample.name}: an objective learns from records of one image and one answer in words about it, but"
    )
    read = [c for m in sample.messages if m.role != "assistant" for c in m.content if isinstance(c, Picture)]
    answers = [message for message in sample.messages if message.role == "assistant"]
    if any(isinstance(item, Signal) for message in sample.messages for item in message.content):
        raise DataError(f"{where} this one has a signal of another modality", "signal")
    if len(read) != 1:
        raise DataError(f"{where} this one shows {len(read)} images", "not one image")
    if len(answers) != 1:
        raise DataError(f"{where} this one has {len(answers)} answers", "not one answer")
    text = [item for item in answers[0].content if isinstance(item, str)]
    if len(text) != len(answers[0].content):
        raise DataError(f"{where} this one answers with an image", "image as answer")
    if not answers[0].learnt:
        raise DataError(f"{where} the answer of this one is not to be learnt", "answer not learnt")
    words = "".join(text)
    return Description(read[0], words, tuple(sample.truth.get("labels", (words,))))
