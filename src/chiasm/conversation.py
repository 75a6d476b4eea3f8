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
from chiasm.generators import SEEDS, Generators, check_seed
from chiasm.heads import Half
from chiasm.kernels import quick_linear
from chiasm.sequence import Kind, Slot, WrittenImages

if TYPE_CHECKING:
    from chiasm.model import Model

BROKEN = "\N{REPLACEMENT CHARACTER}"  # how a tokenizer writes the first bytes of a letter


@dataclass
class Reply:
    """An answer: `content` is text and pictures in the order in which they were made."""

    content: list[str | Image.Image] = field(default_factory=list)

    def add(self, piece: str | Image.Image) -> None:
        """Append a piece, text to text."""
        if isinstance(piece, str) and self.content and isinstance(self.content[-1], str):
            self.content[-1] += piece
        else:
            self.content.append(piece)

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
    seed: of the first picture that is drawn; each further one has the next.
    Raises DataError for a picture that cannot be read or a conversation longer than the context.
    """
    reply = Reply()
    for piece in Turn(
        model, messages, seed=seed, tokens=tokens, guidance=guidance, temperature=temperature, top_k=top_k
    ):
        reply.add(piece)
    return reply


class Turn(Iterator["str | Image.Image"]):
    """An answer in the making: an iterator of text and pictures, piece by piece.

    Whatever stops it (Ctrl-C, an exception, a loop that is left), iterating again goes on where it stood, within a
    half-drawn picture too. Arguments are those of `chat`.
    """

    def __init__(
        self,
        model: Model,
        messages: Sequence[Message | Mapping[str, Any]] | str,
        *,
        seed: int = 0,
        tokens: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
    ):
        self.model = model
        self.choices = sampling_of(
            model, guidance=guidance, temperature=temperature, top_k=top_k, tokens=tokens
        )
        sample = Sample("the conversation", tuple(as_messages(messages)))
        self.document = document(model.contract, sample, prompt=True)
        self.ended = False
        self._reader = KnownCodes(model)
        self._seed = check_seed(seed)
        self._half = Half(Generators([self._seed]))
        self._session: Session | None = None  # None: the document is to be read (again)
        self._left = self.choices.answer_tokens
        self._unshown: list[int] = []  # ids whose text is not shown yet
        self._draws = False

    def __next__(self) -> str | Image.Image:
        try:
            with torch.inference_mode(), quick_linear(self.model.device):
                while not self.ended:
                    piece = self._draw() if self._draws else self._say()
                    if piece:
                        return piece
        except BaseException:
            self._session = None  # some layers of its cache may be ahead of the others
            raise
        raise StopIteration

    def _say(self) -> str:
        """One more token; returns the text that is whole by now."""
        tokenizer = self.model.language.tokenizer
        if self._left <= 0 or len(self.document) >= self.model.language.context:
            return self._end()
        session = self._session or Session(self.model, [self.document], self._reader)
        id = int(self.model.said(session.last).argmax(-1))
        if id == tokenizer.end:
            return self._end()
        self._draws = id == tokenizer.draw
        if not self._draws:
            session.step_text(torch.tensor([id], device=self.model.device))
            self._unshown.append(id)
        self._session = None if self._draws else session
        self.document.add_text([id], learn=False)
        self._left -= 1
        return self._show()

    def _show(self) -> str:
        text = self.model.language.tokenizer.decode(self._unshown)
        if text.endswith(BROKEN) and not (self._draws or self.ended):
            return ""
        self._unshown = []
        return text

    def _end(self) -> str:
        self.ended = True
        return self._show()

    def _draw(self) -> Image.Image | None:
        """The picture that the document's last marker begins; its positions are appended to the document."""
        if self._left <= 0:
            self._draws, self.ended = False, True
            return None
        model, choices = self.model, self.choices
        generators = self._half.restored()
        codes = draw(
            model,
            [self.document],
            guidance=choices.guidance,
            temperature=choices.temperature,
            top_k=choices.top_k,
            generators=generators,
            reader=self._reader,
            half=self._half,
        )
        picture = to_pictures(decode(model, codes, generators))[0]
        item = PictureInMemory(picture)
        self._reader.known[item.key] = codes[0]
        span, tokenizer = model.contract.span, model.language.tokenizer
        assert span is not None
        self.document.add_picture(item, Kind.WRITTEN, tokenizer.end, span.opens, span.exposed)
        self.document.add_text(tokenizer.behind_picture, learn=False)
        self._seed = (self._seed + 1) % SEEDS
        self._half, self._draws = Half(Generators([self._seed])), False
        return picture


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


class KnownCodes(PictureReader):
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
