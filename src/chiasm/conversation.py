"""Conversations: answers in words and pictures, piece by piece, and the forms in which messages may be given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from chiasm.data.documents import PictureReader, document
from chiasm.data.files import PictureInMemory
from chiasm.data.placeholders import check_placeholders
from chiasm.data.records import RecordReader
from chiasm.data.references import References, first_path
from chiasm.data.sample import Message, Picture, Role, Sample
from chiasm.devices import fitting
from chiasm.errors import DataError, excerpt
from chiasm.generation import Session, decode, draw, sampling_of, to_pictures
from chiasm.generators import SEEDS, Generators, check_seed
from chiasm.heads import DrawingState
from chiasm.kernels import quick_linear
from chiasm.sequence import Kind, Slot, WrittenImages

if TYPE_CHECKING:
    from chiasm.model import Model

Conversation = Sequence[Message | Mapping[str, Any]] | Mapping[str, Any] | str

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
    messages: Conversation,
    *,
    seed: int = 0,
    tokens: int | None = None,
    guidance: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
) -> Reply:
    """Answer a conversation.

    messages: a question, or messages as `{"role": "user", "content": ["What is this?", "cat.png"]}`, whose content
        is text, or a list of text and images, or a record of any form that data files may have (docs/data.md). An
        image is a PIL object, bytes, a path as a string of its own, or `{"image": path}`; `{"text": words}` is
        never taken for a path.
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
        messages: Conversation,
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
        self._progress = DrawingState(Generators([self._seed]))
        self._session: Session | None = None  # None: the document is to be read (again)
        self._left = self.choices.answer_tokens
        self._words: list[int] = []  # ids of the text since the last picture
        self._shown = 0  # how many letters of it have been given out
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
        if id in tokenizer.ends:
            return self._end()
        self._draws = id == tokenizer.draw
        if not self._draws:
            session.step_text(torch.tensor([id], device=self.model.device))
            self._words.append(id)
        self._session = None if self._draws else session
        self.document.add_text([id], learn=False)
        self._left -= 1
        return self._show()

    def _show(self) -> str:
        """The text that is certain by now, as far as it has not been given out."""
        tokenizer = self.model.language.tokenizer
        whole, ended = tokenizer.answer(self._words)
        self.ended |= ended
        if not (self._draws or self.ended):
            whole = whole.rstrip(BROKEN)
            if tokenizer.end_text:  # its beginning may stand there already
                whole = whole[: max(self._shown, len(whole) + 1 - len(tokenizer.end_text))]
        piece, self._shown = whole[self._shown :], len(whole)
        if self._draws:
            self._words, self._shown = [], 0
        return piece

    def _end(self) -> str:
        self.ended = True
        return self._show()

    def _draw(self) -> Image.Image | None:
        """The picture that the document's last marker begins; its positions are appended to the document."""
        if self._left <= 0:
            self._draws, self.ended = False, True
            return None
        model, choices = self.model, self.choices
        generators = self._progress.restored()
        codes = draw(
            model,
            [self.document],
            choices.of_images,
            generators=generators,
            reader=self._reader,
            progress=self._progress,
        )
        picture = to_pictures(decode(model, codes, generators))[0]
        item = PictureInMemory(picture)
        self._reader.known[item.key] = codes[0]
        span, tokenizer = model.contract.span, model.language.tokenizer
        assert span is not None
        self.document.add_picture(
            item, Kind.WRITTEN, tokenizer.end, span.opens, span.exposed, span.coordinates
        )
        self.document.add_text(tokenizer.behind_picture, learn=False)
        self._seed = (self._seed + 1) % SEEDS
        self._progress, self._draws = DrawingState(Generators([self._seed])), False
        return picture


def as_messages(messages: Conversation) -> list[Message]:
    """Messages in the forms that `chat` takes; raises DataError naming what is not understood."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, Mapping | list | tuple):
        raise DataError(f"the conversation is {excerpt(messages)}; it must be text, or a list of messages")
    if not messages:
        raise DataError("the conversation is empty")
    record = messages if isinstance(messages, Mapping) else {"messages": list(messages)}
    read = list(_READER.messages(record, "the conversation"))
    if not read or any(message.role == "document" for message in read):
        raise DataError("the conversation must have turns of the roles system, user and assistant")
    if not any(isinstance(item, Picture) or item.strip() for item in read[-1].content):
        raise DataError(f"the conversation, turn {len(read)} is empty: there is nothing to answer", "turns")
    return read


class _Reader(RecordReader):
    """Takes a bare string of a user for words or for a path, but never guesses among words."""

    def _string(self, text: str, role: Role, where: str, *, alone: bool) -> str | Picture:
        path = first_path(text) if role == "user" else None
        if path is None:
            return text
        if not alone and path == text:
            return self.references.picture(path, where)
        raise DataError(
            f"{where}: there is no picture at {excerpt(text)}, though it names {excerpt(path)}; give a picture as "
            '{"image": path}, and words about a file as {"text": words}'
        )

    def _words(self, text: str, where: str, supply: Any, *, item: bool = False) -> Iterator[str | Picture]:
        if not item:
            check_placeholders(text, where, 'words that only look like one are given as {"text": words}')
        return supply.fill(text)


_READER = _Reader(References())


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
            pixels = fitting(pixels, self.model.image_tokenizer)
            self.known[picture.key] = self.model.image_tokenizer.encode(pixels)[0]
        return self.known[picture.key]
