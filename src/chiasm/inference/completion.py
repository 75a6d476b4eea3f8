"""Visual sentences: images that follow from images, without a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from chiasm.data.documents import draw_prompt
from chiasm.data.files import PictureInMemory
from chiasm.data.references import ImageLike, pictures_of
from chiasm.data.sample import Message, Picture, Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.heads import DrawingState, Sampling
from chiasm.inference.drawing import decode, to_images, write
from chiasm.inference.engine import Engine
from chiasm.inference.options import sampling_of
from chiasm.inference.reading import CodedImage, CodeReader, suffix
from chiasm.inference.requests import Forget, Keep, Read, Request, Steps
from chiasm.nn.generators import Generators, check_count, seeds_of
from chiasm.sequence import Document

if TYPE_CHECKING:
    from chiasm.model import Model


class VisualSentence(Request):
    """The images that follow those of a sentence, one for each seed, which are also its pieces.

    What is drawn is read once more, as an image to look at; the sentence before it is not.
    """

    def __init__(self, model: Model, images: Sequence[Picture], sampling: Sampling, seeds: Sequence[int]):
        super().__init__()
        self.model, self.sampling, self.seeds = model, sampling, seeds
        self.sentence, self.targets = list(images), list[Tensor]()
        self._reader = CodeReader(model)
        self._progress = DrawingState(Generators(seeds[:1]))

    @property
    def rows(self) -> int:
        return 1

    @property
    def positions(self) -> int:
        return len(self._prompt()) + (len(self.seeds) + 1) * _length(self.model)

    def steps(self) -> Steps:
        prompt = self._prompt()
        states = yield Read([prompt])
        while len(self.targets) < len(self.seeds):
            generators, retained = self._progress.restored(), list[Tensor]()
            drawn = yield from write(self.model, states, self.sampling, generators, self._progress, retained)
            self._append(drawn.target, generators)
            if len(self.targets) == len(self.seeds):
                break
            before, prompt = prompt, self._prompt()
            if _begins_with(prompt, before):
                yield Forget(sum(each.shape[1] for each in retained))
                states = (yield suffix(self.model, self._reader, prompt, len(before)))[:, -1]
            else:  # the chat template writes more behind an image than its marker
                yield Keep([])
                states = yield Read([prompt])
        return self.sentence[-len(self.seeds) :]

    def _prompt(self) -> Document:
        sample = Sample("the sentence", (Message("user", tuple(self.sentence)),))
        return draw_prompt(self.model.contract, sample)

    def _append(self, target: Tensor, generators: Generators) -> None:
        image = to_images(decode(self.model, target, generators))[0]
        self.sentence.append(CodedImage(PictureInMemory(image), target[0]))
        self.targets.append(target)
        self.pieces.append(image)
        following = self.seeds[len(self.targets) :][:1]
        self._progress = DrawingState(Generators(following))


def complete(
    model: Model,
    pictures: ImageLike | Sequence[ImageLike],
    *,
    count: int = 1,
    seed: int = 0,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
) -> list[Image.Image]:
    """The next `count` images of a visual sentence (LVM, arXiv 2312.00785).

    Classifier-free guidance plays no part: there are no words to be guided by, whatever the model's sampling says.

    pictures: those that there are, as an analogy has them: x1, y1, x2, y2, ..., x.
    seed: of the first image; each further one has the next.
    Raises ChiasmError for a model that does not read images as the codes that it writes, and DataError where its
    context has no room for all images, those that are to follow included.
    """
    options = sampling_of(model, temperature=temperature, top_k=top_k, top_p=top_p)
    seeds = seeds_of(seed, 1, check_count(count))
    sentence = pictures_of(pictures, "the sentence")
    if not sentence:
        raise DataError("a visual sentence needs a picture to follow")
    most = most_images(model)
    if len(sentence) + count > most:
        raise DataError(
            f"a visual sentence of {len(sentence)} images and {count} to follow is too long: the context of "
            f"{model.contract.context} positions has room for {most} images in all"
        )
    request = VisualSentence(model, sentence, replace(options.of_images, guidance=1.0), seeds)
    drawn: list[CodedImage] = Engine(model).submit(request).result()
    return [each.open() for each in drawn]


def most_images(model: Model) -> int:
    """How many images a visual sentence may have in all; raises ChiasmError for a model that completes none."""
    contract = model.contract
    if contract.shown is None or contract.span is None:
        raise ChiasmError(
            "this model cannot complete a visual sentence: it does not read pictures as the codes that it writes"
        )
    return contract.context // _length(model)


def _length(model: Model) -> int:
    """Positions of an image in a sentence, its markers included."""
    contract = model.contract
    assert contract.span is not None
    markers = len(contract.tokenizer.before_picture) + len(contract.tokenizer.behind_picture)
    return contract.span.length + markers


def _begins_with(document: Document, other: Document) -> bool:
    columns = ("ids", "kinds", "opens", "exposed")
    return document.slots[: len(other.slots)] == other.slots and all(
        getattr(document, name)[: len(other)] == getattr(other, name) for name in columns
    )
