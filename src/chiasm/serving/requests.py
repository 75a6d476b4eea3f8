"""Requests of clients as requests of the engine: checked, documents made, in a thread that no model waits for."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from chiasm.data.documents import document, draw_prompt
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message, Picture, Sample
from chiasm.data.tool_calls import declared
from chiasm.errors import ChiasmError, naming
from chiasm.heads import Sampling
from chiasm.inference.calling import CalledTools
from chiasm.inference.conversation import Conversation
from chiasm.inference.drawing import Drawing, EditedImage, drawn_images, sources_of, without_negative
from chiasm.inference.editing import edit_of
from chiasm.inference.negatives import EMPTY_PROMPT, Negative, negative_of
from chiasm.inference.options import refuse_unread, sampling_of
from chiasm.inference.preview import Previews, watched
from chiasm.inference.reading import CodedImage
from chiasm.inference.requests import Steps
from chiasm.inference.signals import Synthesis, check_modality
from chiasm.model import Model
from chiasm.nn.generators import Generators, seeds_of
from chiasm.sequence import Document
from chiasm.serving.messages import RequestImages, check_letters, checked, messages_of
from chiasm.serving.responses_schema import ResponsesRequest, response_messages
from chiasm.serving.schema import (
    ChatRequest,
    CompletionRequest,
    DrawingFields,
    EditsRequest,
    FileFields,
    ImagesRequest,
    SignalsRequest,
    WordFields,
    drawing_names,
    sampling_options,
)


class Images(Drawing):
    """Images behind prompts; its result is the images themselves, with their codes.

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
        negative: Negative = EMPTY_PROMPT,
    ):
        super().__init__(model, prompts, sampling, generators, original=original, negative=negative.prompt)
        self._previews, self._sources, self._negative = previews, sources_of(model, prompts), negative

    def steps(self) -> Steps:
        assert self.progress is not None
        previews = Previews(self.model, self.progress, self.generators, self._previews)
        target = yield from watched(super().steps(), lambda: self._show(previews))
        guidance = self.sampling.guidance
        images = drawn_images(self.model, target, self.generators, guidance, self._sources, self._negative)
        own = without_negative(self.model, target, guidance)
        return [CodedImage(PictureInMemory(each), codes) for each, codes in zip(images, own, strict=True)]

    def _show(self, previews: Previews) -> None:
        if (image := previews.take()) is not None:
            self.pieces.append(image)


def response_request(
    model: Model, body: ResponsesRequest, images: RequestImages
) -> tuple[Conversation, CalledTools | None]:
    """As `chat_request`."""
    drawing = body.drawing
    if drawing is not None and not model.draws:
        raise ChiasmError.of("tools", "this model answers in text alone; leave image_generation out")
    _check_drawing(model, body, "leave it out, or give the tool image_generation" if drawing is None else "")
    if drawing is not None:
        check_size(model, drawing.size)
        _check_file(drawing, "tools")
        if drawing.partial_images and not body.stream:
            raise ChiasmError.of("tools", "partial_images come in a stream; set stream")
    options = sampling_of(model, **sampling_options(body, body.max_output_tokens))
    messages = response_messages(body, images)
    if body.functions and body.parallel_tool_calls is False:
        raise ChiasmError.of("parallel_tool_calls", "an answer may call several functions; leave it out")
    sample = _sample("the conversation", messages, body.functions)
    prompt = _document(model, sample, "input")
    previews = (drawing.partial_images or 0) if drawing is not None else 0
    draws = drawing is not None
    request = Conversation(model, prompt, options, seed_of(body.seed), images=draws, previews=previews)
    return request, CalledTools.of(model.contract.tokenizer, sample)


def chat_request(
    model: Model, body: ChatRequest, images: RequestImages
) -> tuple[Conversation, CalledTools | None]:
    """The request, and what reads calls of tools in its answer; raises ChiasmError for what the model cannot do."""
    wanted = set(body.modalities or ("text", "image"))
    if body.modalities and "image" in wanted and not model.draws:
        raise ChiasmError.of("modalities", "this model answers in text alone")
    if body.modalities and "text" not in wanted:
        raise ChiasmError.of(
            "modalities", "this model's answers may always hold text; ask for text and image"
        )
    if body.max_tokens and body.max_completion_tokens:
        raise ChiasmError.of("max_tokens", "max_completion_tokens says the same; leave one out")
    _check_stream(body)
    _check_drawing(model, body, "leave it out" if "image" not in wanted else "")
    messages = messages_of(body.messages, images)
    options = sampling_of(model, **sampling_options(body, body.max_completion_tokens or body.max_tokens))
    tools = body.tools or [] if body.tool_choice != "none" else []
    sample = _sample("the conversation", messages, [tool.model_dump(exclude_none=True) for tool in tools])
    prompt = _document(model, sample, "messages")
    request = Conversation(model, prompt, options, seed_of(body.seed), images="image" in wanted)
    return request, CalledTools.of(model.contract.tokenizer, sample)


def completion_request(model: Model, body: CompletionRequest) -> Conversation:
    """The prompt is plain text: no template stands round it."""
    _check_stream(body)
    options = sampling_of(model, **sampling_options(body, body.max_tokens))
    prompt = _document(model, _sample("the prompt", [Message("document", (body.prompt,))]), "prompt")
    return Conversation(model, prompt, options, seed_of(body.seed), images=False)


def _sample(name: str, messages: Sequence[Message], tools: Sequence[Any] = ()) -> Sample:
    return Sample(name, tuple(messages), tools=declared(tools))


def _document(model: Model, sample: Sample, field: str) -> Document:
    """field: the one that holds the sample."""
    with naming(field):
        check_letters(model, sample.messages, sample.tools)
        return checked(model, document(model.contract, sample, prompt=True))


def signals_request(model: Model, body: SignalsRequest, images: RequestImages) -> Synthesis:
    """Raises ChiasmError for a modality that the model has not, or what else it cannot do."""
    check_modality(model, body.modality)
    messages = messages_of(body.messages, images)
    with naming("messages"):
        check_letters(model, messages)
        request = Synthesis(model, body.modality, _sample("the conversation", messages), seed_of(body.seed))
        checked(model, request.document)
    return request


def images_request(model: Model, body: ImagesRequest) -> tuple[Images, Sequence[int]]:
    """The request, and the seed of each image."""
    _check_images(model, body)
    sample = Sample("the prompt", (Message("user", (body.prompt,)),))
    with naming("prompt"):
        prompt = draw_prompt(model.contract, sample)
    return _images(model, body, prompt, None, ())


def edits_request(model: Model, body: EditsRequest, images: RequestImages) -> tuple[Images, Sequence[int]]:
    """The request, and the seed of each image."""
    _check_images(model, body)
    several = [images.read(each.image_url, f"images[{i}]") for i, each in enumerate(body.images)]
    mask = None if body.mask is None else images.file(body.mask.image_url, "mask").data()
    with naming("prompt"):
        wanted = edit_of(model, several, body.prompt, mask)
    return _images(model, body, wanted.prompt, wanted.original, several if mask is None else ())


def _check_images(model: Model, body: ImagesRequest) -> None:
    if not model.draws:
        raise ChiasmError.of("model", "it has no image head and cannot draw")
    if not body.prompt.strip():
        raise ChiasmError.of("prompt", "it is empty: there is nothing to draw")
    with naming("prompt"):
        check_letters(model, [Message("user", (body.prompt,))])
    check_size(model, body.size)
    _check_file(body)
    if body.partial_images and not body.stream:
        raise ChiasmError.of("partial_images", "they come in a stream; set stream")
    if body.stream and (body.n or 1) != 1:
        raise ChiasmError.of("n", "a stream is of one image")


def _check_stream(body: WordFields) -> None:
    """Raise ChiasmError for options of a stream where there is none."""
    if body.stream_options is not None and not body.stream:
        raise ChiasmError.of("stream_options", "they are of a stream; set stream, or leave them out")


def _check_drawing(model: Model, body: DrawingFields, remedy: str) -> None:
    """Raise ChiasmError for an option of images that would change nothing.

    remedy: what to do about one where the answer holds no image; empty where it may hold some.
    """
    names = drawing_names(body)
    if remedy and names:
        name = next(iter(names.values()))
        raise ChiasmError.of(name, f"it is of images, and this answer holds none; {remedy}")
    refuse_unread(model, names)


def _check_file(wanted: FileFields, *within: str) -> None:
    """Raise ChiasmError for an option of other files than are wanted. within: the field that holds them, if any."""
    if wanted.output_compression is not None and wanted.output_format in (None, "png"):
        field, *rest = *within, "output_compression"
        sentence = "it is of jpeg and webp; name one as output_format, or leave it out"
        raise ChiasmError.of(field, ": ".join([*rest, sentence]))


def _images(
    model: Model,
    body: ImagesRequest,
    prompt: Document,
    original: EditedImage | None,
    before: Sequence[Picture],
) -> tuple[Images, Sequence[int]]:
    """before: images that stand before the prompt."""
    options = sampling_of(
        model, guidance=body.guidance_scale, temperature=body.temperature, top_k=body.top_k, top_p=body.top_p
    )
    seeds = seeds_of(seed_of(body.seed), 1, body.n or 1)
    with naming("negative_prompt"):
        if body.negative_prompt is not None:
            check_letters(model, [Message("user", (body.negative_prompt,))])
        negative = negative_of(model, body.negative_prompt, options.guidance, before)
    with naming("prompt"):
        request = Images(
            model,
            [prompt] * len(seeds),
            options.of_images,
            Generators(seeds),
            previews=body.partial_images or 0,
            original=original,
            negative=negative,
        )
    return request, seeds


def check_size(model: Model, size: str | None) -> None:
    """Raise ChiasmError for a size that the model does not draw."""
    own = model.contract.written_size
    assert own is not None
    if size not in (None, "auto", f"{own.width}x{own.height}"):
        raise ChiasmError.of("size", f"this model draws {own.width}x{own.height}, not {size!r}")


def seed_of(seed: int | None) -> int:
    """The request's, or one that nobody could know."""
    return secrets.randbits(31) if seed is None else seed
