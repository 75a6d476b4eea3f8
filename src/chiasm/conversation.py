"""Conversations: answers in words and pictures, piece by piece, and the forms in which messages may be given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from chiasm.data.documents import PictureReader, document
from chiasm.data.files import PictureFile, PictureInMemory
from chiasm.data.sample import Message, Picture, Sample
from chiasm.errors import DataError
from chiasm.generation import Session, decode, draw, sampling_of, to_pictures
from chiasm.sequence import Document, Kind, Slot, WrittenImages

if TYPE_CHECKING:
    from chiasm.model import Model
    from chiasm.recipe import Sampling


@dataclass
class Reply:
    """An answer: `content` is text and pictures in the order in which they were made."""

    content: list[str | Image.Image] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(item for item in self.content if isinstance(item, str)).strip()

    @property
    def pictures(self) -> list[Image.Image]:
        return [item for item in self.content if isinstance(item, Image.Image)]

    def __str__(self) -> str:
        return "".join(item if isinstance(item, str) else "[picture]" for item in self.content).strip()


def chat(
    model: Model,
    messages: Sequence[Message | Mapping[str, Any]] | str,
    *,
    seed: int = 0,
    tokens: int | None = None,
    guidance: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
) -> Reply:
    """Answer a conversation.

    messages: a question, or messages as `{"role": "user", "content": ["What is this?", "cat.png"]}`, whose content
        is text, or a list of text, pictures (PIL or path ending in a picture's suffix) or `{"image": path}`.
    Raises DataError for a picture that cannot be read or a conversation longer than the context.
    """
    reply = Reply()
    for item in stream(
        model, messages, seed=seed, tokens=tokens, guidance=guidance, temperature=temperature, top_k=top_k
    ):
        if isinstance(item, str) and reply.content and isinstance(reply.content[-1], str):
            reply.content[-1] += item
        else:
            reply.content.append(item)
    return reply


@torch.inference_mode()
def stream(
    model: Model,
    messages: Sequence[Message | Mapping[str, Any]] | str,
    *,
    seed: int = 0,
    tokens: int | None = None,
    guidance: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
) -> Iterator[str | Image.Image]:
    """`chat`, piece by piece as it is made."""
    choices = sampling_of(model, guidance=guidance, temperature=temperature, top_k=top_k, tokens=tokens)
    sample = Sample("the conversation", tuple(as_messages(messages)))
    made = document(model.contract, sample, prompt=True)
    reader = _KnownCodes(model)
    generator = torch.Generator(model.device).manual_seed(seed)
    left = choices.answer_tokens
    while left > 0:
        ids, ended = _say(model, made, reader, left)
        made.add_text(ids, learn=False)
        left -= len(ids)
        words = [id for id in ids if id != model.language.tokenizer.draw]
        if words:
            yield model.language.tokenizer.decode(words)
        if ended or left <= 0:
            return
        yield _draw_into(model, made, reader, choices, generator)


def as_messages(messages: Sequence[Message | Mapping[str, Any]] | str) -> list[Message]:
    """Messages in the forms that `chat` takes; raises DataError naming the message."""
    if isinstance(messages, str):
        return [Message("user", (messages,))]
    if not messages:
        raise DataError("the conversation is empty")
    return [m if isinstance(m, Message) else _as_message(m, i) for i, m in enumerate(messages)]


def _as_message(raw: Mapping[str, Any], index: int) -> Message:
    where = f"message {index}"
    if not isinstance(raw, Mapping) or "role" not in raw or "content" not in raw:
        raise DataError(f"{where} must be a mapping with 'role' and 'content', not {raw!r}")
    if raw["role"] not in ("system", "user", "assistant"):
        raise DataError(f"{where} has the role {raw['role']!r}; it must be system, user or assistant")
    content = raw["content"] if isinstance(raw["content"], list | tuple) else [raw["content"]]
    return Message(raw["role"], tuple(_as_item(item, where) for item in content))


def _as_item(item: Any, where: str) -> str | Picture:
    if isinstance(item, Picture):
        return item
    if isinstance(item, Image.Image):
        return PictureInMemory(item)
    if isinstance(item, Path):
        return PictureFile(item)
    if isinstance(item, Mapping):
        if "text" in item:
            return str(item["text"])
        if "image" in item:
            return _as_item(
                item["image"] if not isinstance(item["image"], str) else Path(item["image"]), where
            )
    if isinstance(item, str):
        return item
    raise DataError(
        f"{where} has content {item!r}; it must be text, a picture, or a mapping with 'text' or 'image'"
    )


def _say(model: Model, made: Document, reader: PictureReader, most: int) -> tuple[list[int], bool]:
    """Greedy text behind a document: its ids, and whether the answer has ended (else a picture follows)."""
    tokenizer = model.language.tokenizer
    session = Session(model, [made], reader)
    ids: list[int] = []
    hidden = session.last
    while len(ids) < most and len(made) + len(ids) < model.language.context:
        id = int(model.said(hidden).argmax(-1))
        if id == tokenizer.end:
            return ids, True
        ids.append(id)
        if id == tokenizer.draw:
            return ids, False
        hidden = session.step_text(torch.tensor([id], device=model.device))
    return ids, True


def _draw_into(
    model: Model, made: Document, reader: _KnownCodes, choices: Sampling, generator: torch.Generator
) -> Image.Image:
    """Draw the picture that the document's last marker begins, and append its positions to the document."""
    codes = draw(
        model,
        [made],
        guidance=choices.guidance,
        temperature=choices.temperature,
        top_k=choices.top_k,
        generator=generator,
        reader=reader,
    )
    picture = to_pictures(decode(model, codes, generator))[0]
    item = PictureInMemory(picture)
    reader.known[item.key] = codes[0]
    span = model.contract.span
    assert span is not None
    made.add_picture(item, Kind.WRITTEN, model.language.tokenizer.end, span.opens, span.exposed)
    made.add_text(model.language.tokenizer.behind_picture, learn=False)
    return picture


class _KnownCodes(PictureReader):
    """A reader that knows the codes of pictures drawn earlier in the answer, which need no encoding."""

    def __init__(self, model: Model):
        super().__init__(model.contract)
        self.model = model
        self.known: dict[str, Tensor] = {}

    def _written(self, slots: Sequence[tuple[int, Slot]]) -> WrittenImages:
        codes = [self._codes(slot.picture) for _, slot in slots]
        return WrittenImages(torch.stack(codes), True, torch.tensor([start for start, _ in slots]))

    def _codes(self, picture: Picture) -> Tensor:
        if picture.key not in self.known:
            assert self.model.image_tokenizer is not None
            pixels = self.target(picture)[None].to(self.model.device)
            self.known[picture.key] = self.model.image_tokenizer.encode(pixels)[0]
        return self.known[picture.key]
