"""Requests of clients as requests of the engine: checked, documents made, in a thread that no model waits for."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import closing

from PIL import Image

from chiasm.data.documents import document, draw_prompt
from chiasm.data.sample import Message, Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.heads import Sampling
from chiasm.inference.conversation import Conversation
from chiasm.inference.drawing import Drawing, EditedImage, decode, to_images
from chiasm.inference.editing import edit_of
from chiasm.inference.options import sampling_of
from chiasm.inference.preview import preview, share_drawn
from chiasm.inference.requests import Steps
from chiasm.model import Model
from chiasm.nn.generators import Generators, seeds_of
from chiasm.sequence import Document
from chiasm.serving.messages import image_of, messages_of
from chiasm.serving.schema import (
    ChatRequest,
    CompletionRequest,
    EditsRequest,
    ImagesRequest,
    sampling_options,
)


class Images(Drawing):
    """Images behind prompts; its result is the images themselves.

    previews: how many images that are not whole yet it gives as pieces of the first, evenly spread.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Document],
        sampling: Sampling,
        generators: Generators,
        *,
        previews: int = 0,
        original: EditedImage | None = None,
    ):
        super().__init__(model, prompts, sampling, generators, original=original)
        self._due = deque(each / (previews + 1) for each in range(1, previews + 1))

    def steps(self) -> Steps:
        inner, answer = super().steps(), None
        with closing(inner):
            while True:
                try:
                    wish = inner.send(answer)
                except StopIteration as end:
                    images: list[Image.Image] = to_images(decode(self.model, end.value, self.generators))
                    return images
                self._preview()
                answer = yield wish

    def _preview(self) -> None:
        assert self.progress is not None
        share = share_drawn(self.model, self.progress) if self._due else 0.0
        if not self._due or share < self._due[0] or share == 1:
            return
        while self._due and self._due[0] <= share:
            self._due.popleft()
        pixels = preview(self.model, self.progress, self.generators)
        if pixels is not None:
            self.pieces.append(to_images(pixels[:1])[0])


def chat_request(model: Model, body: ChatRequest, *, most_images: int) -> Conversation:
    """Raises ChiasmError for what the model cannot do."""
    wanted = set(body.modalities or ("text", "image"))
    if body.modalities and "image" in wanted and not model.draws:
        raise ChiasmError("modalities: this model answers in text alone")
    if body.modalities and "text" not in wanted:
        raise ChiasmError("modalities: this model's answers may always hold text; ask for text and image")
    messages = messages_of(body.messages, most_images=most_images)
    options = sampling_of(model, **sampling_options(body))
    prompt = document(model.contract, Sample("the conversation", tuple(messages)), prompt=True)
    return Conversation(model, prompt, options, seed_of(body.seed), images="image" in wanted)


def completion_request(model: Model, body: CompletionRequest) -> Conversation:
    """The prompt is plain text: no template stands round it."""
    sample = Sample("the prompt", (Message("document", (body.prompt,)),))
    options = sampling_of(model, **sampling_options(body))
    prompt = document(model.contract, sample, prompt=True)
    return Conversation(model, prompt, options, seed_of(body.seed), images=False)


def images_request(model: Model, body: ImagesRequest) -> tuple[Images, Sequence[int]]:
    """The request, and the seed of each image."""
    _check_images(model, body)
    sample = Sample("the prompt", (Message("user", (body.prompt,)),))
    return _images(model, body, draw_prompt(model.contract, sample), None)


def edits_request(model: Model, body: EditsRequest, *, most_images: int) -> tuple[Images, Sequence[int]]:
    """The request, and the seed of each image."""
    _check_images(model, body)
    if len(body.images) > most_images:
        raise DataError(f"images: more than {most_images} in one request")
    images = [image_of(each.image_url, f"images[{i}]") for i, each in enumerate(body.images)]
    mask = None if body.mask is None else image_of(body.mask.image_url, "mask").data()
    wanted = edit_of(model, images, body.prompt, mask)
    return _images(model, body, wanted.prompt, wanted.original)


def _check_images(model: Model, body: ImagesRequest) -> None:
    if not model.draws:
        raise ChiasmError("this model has no image head: it cannot draw")
    if not body.prompt.strip():
        raise ChiasmError("prompt: it is empty: there is nothing to draw")
    size = model.contract.written_size
    assert size is not None
    height, width = size
    if body.size not in (None, "auto", f"{width}x{height}"):
        raise ChiasmError(f"size: this model draws {width}x{height}, not {body.size!r}")
    if body.partial_images and not body.stream:
        raise ChiasmError("partial_images: they come in a stream; set stream")
    if body.stream and (body.n or 1) != 1:
        raise ChiasmError("n: a stream is of one image")


def _images(
    model: Model, body: ImagesRequest, prompt: Document, original: EditedImage | None
) -> tuple[Images, Sequence[int]]:
    options = sampling_of(
        model, guidance=body.guidance_scale, temperature=body.temperature, top_k=body.top_k, top_p=body.top_p
    )
    seeds = seeds_of(seed_of(body.seed), 1, body.n or 1)
    request = Images(
        model,
        [prompt] * len(seeds),
        options.of_images,
        Generators(seeds),
        previews=body.partial_images or 0,
        original=original,
    )
    return request, seeds


def seed_of(seed: int | None) -> int:
    """The request's, or one that nobody could know."""
    return secrets.randbits(31) if seed is None else seed
