"""Shapes of replies: images as base64, answers whole and in events."""

from __future__ import annotations

import base64
import io
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from PIL import Image

from chiasm.data.sample import ToolCall
from chiasm.data.signal_files import file_of_signal
from chiasm.inference.conversation import Conversation
from chiasm.inference.preview import Unfinished
from chiasm.inference.signals import Synthesis
from chiasm.sequence import Kind
from chiasm.serving.drawn import png_options
from chiasm.serving.requests import Images
from chiasm.serving.schema import EditsRequest, FileFields, ImagesRequest, SignalsRequest

Piece = str | Image.Image | Unfinished | ToolCall


def encoded(image: Image.Image, form: str = "png", quality: int | None = None) -> str:
    """An image file in base64."""
    file = io.BytesIO()
    options: dict[str, Any] = {"quality": quality} if quality is not None and form != "png" else {}
    options |= png_options(image) if form == "png" else {}
    image.save(file, form, **options)
    return base64.b64encode(file.getvalue()).decode("ascii")


def encoded_as(wanted: FileFields, image: Image.Image) -> str:
    """An image as the file that is wanted."""
    return encoded(image, wanted.output_format or "png", wanted.output_compression)


def described_as(wanted: FileFields, image: Image.Image) -> dict[str, Any]:
    """What a reply says of that file."""
    return {
        "output_format": wanted.output_format or "png",
        "size": f"{image.width}x{image.height}",
        "quality": "auto",
        "background": "opaque",
    }


def image_part(image: Image.Image, index: int) -> dict[str, Any]:
    url = "data:image/png;base64," + encoded(image)
    return {"type": "image_url", "image_url": {"url": url}, "index": index}


def event(data: Mapping[str, Any] | str) -> str:
    """A server-sent event, under its type where it has one."""
    if isinstance(data, str):
        return f"data: {data}\n\n"
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {data['type']}\ndata: {text}\n\n" if "type" in data else f"data: {text}\n\n"


def finish_reason(request: Conversation) -> str:
    return "length" if request.cut else "stop"


def usage(prompt: int, request: Conversation) -> dict[str, Any]:
    """prompt: its positions, before the answer was appended; a request that began anew has read more than these."""
    return {
        "prompt_tokens": prompt,
        "prompt_tokens_details": {"cached_tokens": min(prompt, request.reused)},
        "completion_tokens": request.tokens,
        "total_tokens": prompt + request.tokens,
    }


class WordsReply(ABC):
    """The reply to one request for an answer, in one piece or in events.

    counted: whether a last event holds the tokens of prompt and answer.
    end: what stands behind the last event.
    """

    prefix: str
    end: ClassVar[Sequence[str]] = ("[DONE]",)

    def __init__(self, model: str, seed: int, *, counted: bool = False):
        self.counted = counted
        self.head: dict[str, Any] = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "seed": seed,
        }

    @abstractmethod
    def whole(self, pieces: Sequence[Piece], reason: str, counts: Mapping[str, Any]) -> dict[str, Any]: ...

    def first(self) -> list[dict[str, Any]]:
        """What comes before the first piece."""
        return []

    @abstractmethod
    def events(self, piece: Piece) -> list[dict[str, Any]]:
        """Of the next piece."""

    @abstractmethod
    def last(self, reason: str, counts: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What comes behind the last piece."""


class CompletionReply(WordsReply):
    """What follows a text."""

    prefix = "cmpl"

    def whole(self, pieces: Sequence[Piece], reason: str, counts: Mapping[str, Any]) -> dict[str, Any]:
        return self._choice("".join(map(str, pieces)), reason) | {"usage": dict(counts)}

    def events(self, piece: Piece) -> list[dict[str, Any]]:
        return [self._choice(str(piece), None)]

    def last(self, reason: str, counts: Mapping[str, Any]) -> list[dict[str, Any]]:
        usage = {**self.head, "object": "text_completion", "choices": [], "usage": dict(counts)}
        return [self._choice("", reason), *([usage] if self.counted else [])]

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        return {**self.head, "object": "text_completion", "choices": [choice]}


class ChatReply(WordsReply):
    """An answer to a conversation. ordered: content is a list of parts in order."""

    prefix = "chatcmpl"

    def __init__(self, model: str, seed: int, *, ordered: bool, counted: bool = False):
        super().__init__(model, seed, counted=counted)
        self.ordered, self._images, self._calls = ordered, 0, 0

    def whole(self, pieces: Sequence[Piece], reason: str, counts: Mapping[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "refusal": None}
        if self.ordered:
            message["content"] = self._parts(pieces)
        else:
            message["content"] = "".join(piece for piece in pieces if isinstance(piece, str))
            images = [self._image(piece) for piece in pieces if isinstance(piece, Image.Image)]
            message |= {"images": images} if images else {}
        if calls := [self._call(piece) for piece in pieces if isinstance(piece, ToolCall)]:
            message |= {"content": message["content"] or None, "tool_calls": calls}
        choice = {"index": 0, "message": message, "finish_reason": self._reason(reason), "logprobs": None}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": dict(counts)}

    def first(self) -> list[dict[str, Any]]:
        return [self._chunk({"role": "assistant", "content": [] if self.ordered else ""})]

    def events(self, piece: Piece) -> list[dict[str, Any]]:
        if isinstance(piece, ToolCall):
            return [self._chunk({"tool_calls": [{"index": self._calls, **self._call(piece)}]})]
        if self.ordered:
            return [self._chunk({"content": self._parts([piece])})]
        if isinstance(piece, str):
            return [self._chunk({"content": piece})]
        return [self._chunk({"images": [self._image(piece)]})]

    def last(self, reason: str, counts: Mapping[str, Any]) -> list[dict[str, Any]]:
        usage = {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": dict(counts)}
        return [self._chunk({}, self._reason(reason)), *([usage] if self.counted else [])]

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": dict(delta), "finish_reason": reason, "logprobs": None}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    def _reason(self, reason: str) -> str:
        return "tool_calls" if self._calls and reason == "stop" else reason

    def _call(self, call: ToolCall) -> dict[str, Any]:
        self._calls += 1
        function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
        return {"id": call.id, "type": "function", "function": function}

    def _parts(self, pieces: Iterable[Piece]) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for piece in pieces:
            if isinstance(piece, ToolCall):
                continue
            if not isinstance(piece, str):
                parts.append(self._image(piece))
            elif parts and parts[-1]["type"] == "text":
                parts[-1]["text"] += piece
            else:
                parts.append({"type": "text", "text": piece})
        return parts

    def _image(self, image: Image.Image | Unfinished) -> dict[str, Any]:
        assert isinstance(image, Image.Image)  # nothing unfinished is asked for in this shape
        self._images += 1
        return image_part(image, self._images - 1)


def signal_reply(body: SignalsRequest, request: Synthesis, numbers: Float[np.ndarray, ...]) -> dict[str, Any]:
    prompt, drawn = len(request.document), request.modality.positions
    return {
        "object": "signal",
        "created": int(time.time()),
        "model": body.model,
        "modality": body.modality,
        "shape": numbers.shape,
        "data": base64.b64encode(file_of_signal(numbers)).decode(),
        "seed": request.seed,
        "usage": {"prompt_tokens": prompt, "completion_tokens": drawn, "total_tokens": prompt + drawn},
    }


class ImagesReply:
    """The reply to a request for images, whole or as events of one that grows."""

    def __init__(self, body: ImagesRequest, seeds: Sequence[int], request: Images):
        self.kind = "image_edit" if isinstance(body, EditsRequest) else "image_generation"
        self.body, self.seeds, self.stream, self._partials = body, seeds, bool(body.stream), 0
        prompt = max(map(len, request.documents))
        drawn = (request.positions - prompt) * len(seeds)
        read = sum(kind == Kind.READ for kind in request.documents[0].kinds)
        self.usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"text_tokens": prompt - read, "image_tokens": read},
            "output_tokens": drawn,
            "total_tokens": prompt + drawn,
        }

    def whole(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        files = [encoded_as(self.body, each) for each in images]
        data = [
            {"b64_json": file, "seed": seed, **_revised(image)}
            for file, seed, image in zip(files, self.seeds, images, strict=True)
        ]
        form = described_as(self.body, images[0])
        return {"created": int(time.time()), "data": data, **form, "usage": self.usage}

    def partial(self, image: Image.Image) -> dict[str, Any]:
        self._partials += 1
        more = {"partial_image_index": self._partials - 1}
        return self._event("partial_image", image) | more

    def completed(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        more = {"seed": self.seeds[0], "usage": self.usage, **_revised(images[0])}
        return self._event("completed", images[0]) | more

    def _event(self, what: str, image: Image.Image) -> dict[str, Any]:
        return {
            "type": f"{self.kind}.{what}",
            "b64_json": encoded_as(self.body, image),
            "created_at": int(time.time()),
            **described_as(self.body, image),
        }


def _revised(image: Image.Image) -> dict[str, Any]:
    """The words of the model's own after which an image was drawn."""
    caption = image.info.get("caption")
    return {} if caption is None else {"revised_prompt": caption}
