"""Messages of a request to ours, and its images: nothing in them names a file of the server's."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from PIL import Image

from chiasm.data.files import EncodedPicture, PictureBytes, picture_of_base64
from chiasm.data.sample import Media, Message, Picture, Role, ToolCall
from chiasm.data.signal_files import SignalOfNumbers, signal_of_bytes
from chiasm.data.signals import values_of
from chiasm.data.tool_calls import call_of, link_answers
from chiasm.errors import TOO_LONG, DataError, excerpt, naming
from chiasm.model import Model
from chiasm.sequence import Document
from chiasm.serving.drawn import DrawnImages
from chiasm.serving.fetching import Fetcher
from chiasm.serving.schema import ChatMessage, ImagePart, SignalNumbers, SignalPart

SHORTENED = 4  # times by which a tokenizer may shorten a text before it cuts it into tokens
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
ANSWERED = ("user", "tool")  # roles of messages to which an answer is asked for


class SentImage(PictureBytes):
    """An image file of a request, of whose field is what is wrong with it, also where it is decoded later."""

    def open(self) -> Image.Image:
        with naming(self.where):
            return super().open()


class RequestImages:
    """The images of one request: in `data:` URLs, or behind addresses that may be fetched.

    most, most_pixels: of all images; one more is an error. fetcher: None = no address is fetched. drawn: recognises
    what the model has drawn.
    """

    def __init__(
        self,
        most: int,
        most_pixels: int,
        *,
        fetcher: Fetcher | None = None,
        drawn: DrawnImages | None = None,
    ):
        self.most, self.most_pixels, self.fetcher, self.drawn = most, most_pixels, fetcher, drawn
        self._count = self._pixels = 0

    def read(self, url: str, where: str) -> Picture:
        """The image at a URL; raises DataError naming `where`."""
        self._count += 1
        if self._count > self.most:
            raise DataError.of(where, f"more than {self.most} images in one request")
        picture = self.file(url, where)
        return picture if self.drawn is None else self.drawn.recognise(picture)

    def file(self, url: str, where: str) -> EncodedPicture:
        """The image file at a URL."""
        with naming(where):
            picture = self._encoded(url, where)
            height, width = picture.size  # read here, so that what is no image is refused before it waits
        self._pixels += height * width
        if self._pixels > self.most_pixels:
            raise DataError.of(
                where, f"more than {self.most_pixels:,} pixels in one request; shrink its images"
            )
        return picture

    def _encoded(self, url: str, where: str) -> EncodedPicture:
        if url[:5].lower() == "data:":
            return SentImage(picture_of_base64(url, where).data(), where)
        if self.fetcher is None:
            raise DataError(
                f"{where}: {excerpt(url)} is not fetched; send the image itself, as data:image/png;base64,..."
            )
        return SentImage(self.fetcher.fetch(url, where), where)


def check_letters(model: Model, messages: Sequence[Message], tools: Sequence[Any] = ()) -> None:
    """Raise DataError for text that cannot fit into the context, before time is spent on its tokens."""
    letters = sum(len(item) for message in messages for item in message.content if isinstance(item, str))
    letters += sum(len(json.dumps(call.arguments)) for message in messages for call in message.calls)
    letters += len(json.dumps(tools)) if tools else 0
    most = model.contract.context * longest_token(model) * SHORTENED
    if letters > most:
        raise DataError(
            f"the text has {letters:,} letters, which the context of {model.contract.context} tokens cannot hold",
            TOO_LONG,
        )


def checked(model: Model, conversation: Document) -> Document:
    """The document; raises DataError for a signal in it of another shape than the model's, or not finite."""
    for each in conversation.signals:
        values_of(model.contract, each.signal)
    return conversation


@lru_cache(maxsize=16)
def longest_token(model: Model) -> int:
    """Letters of the longest of a model's tokens."""
    return max(map(len, model.language.tokenizer.inner.get_vocab()))


def messages_of(
    sent: Sequence[ChatMessage], images: RequestImages, *, answered: bool = False
) -> list[Message]:
    """Raises DataError naming a message that holds nothing, an image that cannot be read, or one too many.

    answered: the last may be an answer of the model.
    """
    messages = []
    for number, message in enumerate(sent):
        where = f"messages[{number}]"
        with naming(where):
            messages.append(_message(message, where, images))
    with naming("messages"):
        if messages[-1].role not in ((*ANSWERED, "assistant") if answered else ANSWERED):
            raise DataError(f"the last message is of the role {sent[-1].role!r}; there is nothing to answer")
        if messages[-1].role == "user" and messages[-1].is_blank:
            raise DataError("the last message is empty: there is nothing to answer")
        return link_answers(messages)


def _message(message: ChatMessage, where: str, images: RequestImages) -> Message:
    content = tuple(_content(message, where, images))
    calls = _calls(message, where)
    if not content and not calls:
        raise DataError(f"{where} is empty")
    call = ToolCall("", {}, message.tool_call_id) if message.tool_call_id is not None else None
    if (call is None) is (message.role == "tool"):
        raise DataError(f"{where}: a message has a tool_call_id if, and only if, it is of the role 'tool'")
    return Message(ROLES[message.role], content, calls=calls, call=call)


def _calls(message: ChatMessage, where: str) -> tuple[ToolCall, ...]:
    if message.tool_calls and message.role != "assistant":
        raise DataError.of(f"{where}.tool_calls", "only an answer of the model calls tools")
    calls = []
    for number, call in enumerate(message.tool_calls or ()):
        place = f"{where}.tool_calls[{number}]"
        with naming(place):
            calls.append(call_of(call.function.name, call.function.arguments, call.id, place))
    return tuple(calls)


def _content(message: ChatMessage, where: str, images: RequestImages) -> Iterator[str | Media]:
    if isinstance(message.content, str):
        if message.content:
            yield message.content
    else:
        for number, part in enumerate(message.content or ()):
            place = f"{where}.content[{number}]"
            if isinstance(part, ImagePart):
                yield images.read(part.image_url.url, place)
            elif isinstance(part, SignalPart):
                with naming(f"{place}.signal"):
                    yield _signal(part.signal, message, f"{place}.signal")
            elif part.text:
                yield part.text
    if message.images and message.role != "assistant":
        raise DataError.of(
            f"{where}.images", "only an answer of the model has them; images of a user are parts of content"
        )
    for number, part in enumerate(message.images or ()):
        yield images.read(part.image_url.url, f"{where}.images[{number}]")


def _signal(signal: SignalNumbers, message: ChatMessage, where: str) -> SignalOfNumbers:
    if message.role == "assistant":  # what a signal that was written has become is not read again
        raise DataError(f"{where}: one that the model made is given back by the role 'user'")
    try:
        data = base64.b64decode(signal.data, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{where}.data is no base64: {excerpt(signal.data)}") from None
    return signal_of_bytes(signal.modality, data, f"{where}.data")
