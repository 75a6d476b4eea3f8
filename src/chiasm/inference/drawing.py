"""Drawing images behind prompts, and turning what was drawn into pixels."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from chiasm.data.documents import NO_SOURCE, draw_prompt, source_of, without_prompt
from chiasm.data.sample import Message, Picture, Sample
from chiasm.distribution.devices import fitting
from chiasm.errors import ChiasmError, DataError, check_flag, excerpt
from chiasm.heads import Ask, DrawingState, Order, Retained, Sampling
from chiasm.inference.captions import Captions, caption_texts, captions_of, captions_target
from chiasm.inference.engine import Engine
from chiasm.inference.kernels import inference_mode
from chiasm.inference.negatives import EMPTY_PROMPT, Negative, negative_of
from chiasm.inference.options import sampling_of
from chiasm.inference.reading import CodeReader
from chiasm.inference.requests import Extend, Read, Request, Steps, Wish
from chiasm.nn.generators import Generators, check_count, seeds_of
from chiasm.sequence import Document, Kind

if TYPE_CHECKING:
    from chiasm.model import Model

TOGETHER = 64  # most images of one request


class Drawn(NamedTuple):
    """Images as their head has drawn them.

    last: hidden states of the last position that was kept, in the rows that follow a prompt.
    """

    target: Tensor
    last: Float[Tensor, "n d"]


class Positions:
    """The positions of an image, one ask of its head behind another."""

    def __init__(self, head: Order):
        self.layout, self.done = head.layout(), 0

    def extension(self, ask: Ask, dtype: torch.dtype) -> Extend:
        """What an ask appends; one whose positions are kept moves on."""
        begin, end = self.done, self.done + ask.embeddings.shape[1]
        if ask.keep:
            self.done = end
        return Extend(
            ask.embeddings.to(dtype),
            (Kind.WRITTEN,) * (end - begin),
            self.layout.opens[begin:end],
            self.layout.exposed[begin:end],
            self.layout.coordinates[begin:end],
            keep=ask.keep,
            following=self.layout.length - end,
        )


def write(
    model: Model,
    start: Float[Tensor, "r d"],
    sampling: Sampling,
    generators: Generators | None,
    progress: DrawingState | None,
    retained: list[Float[Tensor, "n s d"]] | None = None,
) -> Generator[Wish, Any, Drawn]:
    """Steps of a request that draw an image in each row, as the image head asks.

    start: hidden states of the position before the image; with guidance the second half are rows without a prompt.
    kept: gets what stands in the cache for the images when they are drawn, in the rows that follow a prompt.
    """
    head = model.image_head
    assert head is not None
    positions = Positions(head)
    images = len(start) if sampling.guidance == 1 else len(start) // 2
    last = start
    writing = head.write(fitting(start, head), sampling, generators, progress)
    hidden: Tensor | None = None
    while True:
        try:
            ask: Ask = writing.send(hidden) if hidden is not None else next(writing)
        except StopIteration as end:
            return Drawn(end.value, last[:images])
        extension = positions.extension(ask, start.dtype)
        read = yield extension
        if ask.keep:
            last = read[:, -1]
            if retained is not None:
                retained.append(extension.embeddings[:images])
        hidden = fitting(read, head)


class EditedImage(NamedTuple):
    """An image of which a part is drawn anew, and the cells of that part."""

    image: Picture
    redrawn: Bool[Tensor, "gh gw"]


class Drawing(Request):
    """One image behind each of some prompts (`draw_prompt`), in step. Its result is what the head has drawn.

    progress: how far the images have got, to go on from there.
    original: the image whose other cells all of them keep; None = all of it is drawn.
    negative: what guidance leads away from; None = the empty prompt.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Document],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
        original: EditedImage | None = None,
        negative: Document | None = None,
    ):
        super().__init__()
        if model.image_head is None:
            raise ChiasmError("this model has no image head: it cannot draw")
        self.model, self.sampling, self.original = model, sampling, original
        self.documents = list(prompts)
        self._captions: Captions | None = None
        if model.follows_words:
            seeds = generators.seeds if generators is not None else ()
            self._captions = Captions(model, prompts, sampling_of(model), seeds)
        elif sampling.guidance != 1:
            self.documents += [negative or without_prompt(model.contract, each) for each in prompts]
        self.progress = progress
        self.generators = generators
        if progress is None and generators is not None:
            self.progress = DrawingState(generators)

    @property
    def rows(self) -> int:
        return len(self.documents)

    @property
    def positions(self) -> int:
        assert self.model.image_head is not None
        prompts = max(map(len, self.documents), default=0)
        before = prompts if self._captions is None else self._captions.positions
        return before + self.model.image_head.layout().length

    def steps(self) -> Steps:
        if self._captions is not None:
            return captions_target(self.model, (yield from self._captions.steps()))
        generators = self.progress.restored() if self.progress is not None else None
        self._retain()
        start = yield Read(self.documents)
        drawn = yield from write(self.model, start, self.sampling, generators, self.progress)
        return drawn.target

    def _retain(self) -> None:
        """Encode the original, once."""
        if self.original is None or self.progress is None or self.progress.retained is not None:
            return
        values = CodeReader(self.model).codes_of(self.original.image)
        self.progress.retained = Retained(values.flatten(0, 1), self.original.redrawn.flatten())


def draw(
    model: Model,
    prompts: Sequence[Document],
    sampling: Sampling,
    *,
    generators: Generators | None = None,
    progress: DrawingState | None = None,
) -> Tensor:
    """What the head draws behind each prompt document (`draw_prompt`): the target of one image each."""
    request = Drawing(model, prompts, sampling, generators, progress)
    return Engine(model).submit(request).result()  # type: ignore[no-any-return]


def generate(
    model: Model,
    prompt: str | Sequence[str],
    *,
    count: int = 1,
    seed: int | Sequence[int] = 0,
    guidance: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    verbatim: bool = False,
    negative: str | None = None,
) -> list[Image.Image]:
    """Images of each prompt, which depend on it and on their seed alone, not on the prompts beside it.

    Where words come before an image (order `caption`), `image.info["caption"]` has those that the model wrote.

    count: images of each prompt, one behind another: of its seed, the seed after it, and so on.
    seed: of every prompt, or a list with one for each.
    verbatim: the prompts are those words themselves, and the language model is not asked.
    negative: words that guidance leads away from; None = the empty prompt.
    Raises ChiasmError for an option out of range.
    """
    prompts = _prompts(prompt)
    check_flag("verbatim", verbatim)
    options = sampling_of(model, guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p)
    seeds = seeds_of(seed, len(prompts), check_count(count))
    contract = model.contract  # a part alone has none, and says so
    if model.image_head is None:
        raise ChiasmError("this model has no image head: it cannot draw")
    negative_prompt = negative_of(model, negative, options.guidance)
    if verbatim:
        captions = [each for each in captions_of(model, prompts) for _ in range(count)]
        return paint(model, captions, seeds, options.guidance, negative_prompt)
    samples = [Sample(f"prompt {i}", (Message("user", (text,)),)) for i, text in enumerate(prompts, 1)]
    documents = [draw_prompt(contract, sample) for sample in samples for _ in range(count)]
    return draw_images(model, documents, seeds, options.of_images, negative=negative_prompt)


def draw_images(
    model: Model,
    prompts: Sequence[Document],
    seeds: Sequence[int],
    sampling: Sampling,
    original: EditedImage | None = None,
    negative: Negative = EMPTY_PROMPT,
) -> list[Image.Image]:
    """One image behind each prompt document, each with its seed; of an original, with what stays of it."""
    engine, handles = Engine(model), []
    for start in range(0, len(prompts), TOGETHER):
        some = slice(start, start + TOGETHER)
        generators, sources = Generators(seeds[some]), sources_of(model, prompts[some])
        request = Drawing(
            model, prompts[some], sampling, generators, original=original, negative=negative.prompt
        )
        handles.append((engine.submit(request), generators, sources))
    images: list[Image.Image] = []
    for handle, generators, sources in handles:
        images += drawn_images(model, handle.result(), generators, sampling.guidance, sources, negative)
    return images


def sources_of(model: Model, documents: Sequence[Document]) -> list[Picture] | None:
    """The image that the next one of each document comes of by a change, where the image decoder makes changes.

    Raises DataError for a document without any.
    """
    if model.image_decoder is None or not model.image_decoder.edits:
        return None
    sources = [source_of(each) for each in documents]
    if None in sources:
        raise DataError(f"{documents[sources.index(None)].name}: {NO_SOURCE}; give one, as to `chiasm edit`")
    return [each for each in sources if each is not None]


def paint(
    model: Model,
    captions: Sequence[Sequence[int]],
    seeds: Sequence[int],
    guidance: float,
    negative: Negative = EMPTY_PROMPT,
) -> list[Image.Image]:
    """Images after words as they are (`captions_of`), each with its seed."""
    target = captions_target(model, captions)
    return drawn_images(model, target, Generators(seeds), guidance, negative=negative)


def drawn_images(
    model: Model,
    target: Tensor,
    generators: Generators | None = None,
    guidance: float = 1.0,
    sources: Sequence[Picture] | None = None,
    negative: Negative = EMPTY_PROMPT,
) -> list[Image.Image]:
    """The images of what the head has drawn; where they follow words, `image.info["caption"]` has these."""
    images = to_images(decode(model, target, generators, guidance, sources, negative))
    if model.follows_words:
        for image, text in zip(images, caption_texts(model, target), strict=True):
            image.info["caption"] = text
    return images


@inference_mode
def decode(
    model: Model,
    target: Tensor,
    generators: Generators | None = None,
    guidance: float = 1.0,
    sources: Sequence[Picture] | None = None,
    negative: Negative = EMPTY_PROMPT,
) -> Float[Tensor, "n 3 h w"]:
    """Pixels of what the head has drawn (`draw`), one after another.

    guidance: with which it was drawn; of conditions the decoder guides, between what follows the prompt and what
        follows the empty one, or between words and none.
    sources: the images that these come of by a change (`sources_of`).
    negative: with which it was drawn.

    In a batch the last bits of a convolution depend on how many images there are, and now and then a byte with
    them: decoded alone an image is the same whatever is drawn beside it.
    """
    if model.image_decoder is None:
        raise ChiasmError(
            "this model has no image decoder: it can draw what its image tokenizer encodes images as, but no pixels"
        )
    pixels, pairs = [], _are_pairs(model, guidance)
    for i, each in enumerate(target.split(1)):
        own = None if generators is None else Generators(generators.seeds[i : i + 1])
        options: dict[str, Any] = {"guidance": guidance} if model.follows_words or pairs else {}
        if pairs:
            options["negative"] = each[:, 1]
        elif negative.words is not None:
            options["negative"] = negative.words
        if sources is not None:
            pixels_of_source = CodeReader(model).target(sources[i])[None].to(model.device)
            options["source"] = fitting(pixels_of_source, model.image_decoder)
        pixels.append(model.image_decoder.decode(each[:, 0] if pairs else each, generators=own, **options))
    return torch.cat(pixels) if pixels else model.image_decoder.decode(target)


def without_negative(model: Model, target: Tensor, guidance: float) -> Tensor:
    """What the head has drawn after the prompt itself; guidance: with which it was drawn."""
    return target[:, 0] if _are_pairs(model, guidance) else target


def _are_pairs(model: Model, guidance: float) -> bool:
    """Whether the head has drawn pairs, for the decoder to guide between."""
    return model.image_head is not None and model.image_head.alphabet.pairs and guidance != 1


def to_images(pixels: Float[Tensor, "n 3 h w"]) -> list[Image.Image]:
    bytes_ = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return [Image.fromarray(rearrange(each, "c h w -> h w c").contiguous().numpy()) for each in bytes_]


def _prompts(prompt: str | Sequence[str]) -> list[str]:
    prompts: list[Any] = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    for i, each in enumerate(prompts):
        if not isinstance(each, str):
            raise DataError(f"prompt {i + 1} is {excerpt(each)}; it must be text")
        if not each.strip():
            raise DataError(f"prompt {i + 1} is empty: there is nothing to draw")
    return prompts
