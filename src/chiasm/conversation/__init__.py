"""Conversations: answers in words and pictures, piece by piece, and the forms in which messages may be given."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from chiasm.data.documents import document
from chiasm.data.placeholders import check_placeholders
from chiasm.data.records import RecordReader
from chiasm.data.references import References, first_path
from chiasm.data.sample import Media, Message, Picture, Role, Sample, ToolCall
from chiasm.data.tool_calls import calls_of, declared, link_answers
from chiasm.errors import ChiasmError, DataError, excerpt, known_options, quoted
from chiasm.inference import conversation as requests
from chiasm.inference.calling import CalledTools
from chiasm.inference.engine import Engine
from chiasm.inference.options import sampling_of
from chiasm.inference.signals import synthesise as synthesise_all
from chiasm.inference.zoom import Zoom, ZoomedAnswer
from chiasm.inference.zoom import zoom as zoom_samples
from chiasm.nn.generators import check_seed

if TYPE_CHECKING:
    from chiasm.model import Model

Conversation = Sequence[Message | Mapping[str, Any]] | Mapping[str, Any] | str


@dataclass
class Reply:
    """An answer: `content` is text and pictures in the order in which they were made, `calls` are of tools.

    cut: a limit (of tokens, or the context) came before its end.
    tokens: that were written; an image counts as its positions.
    """

    content: list[str | Image.Image] = field(default_factory=list)
    calls: tuple[ToolCall, ...] = ()
    cut: bool = False
    tokens: int = 0

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


def chat(model: Model, messages: Conversation, **options: Any) -> Reply:
    """Answer a conversation. Arguments and errors are those of `Turn`."""
    reply, turn = Reply(), Turn(model, messages, **known_options("chat", Turn, options))
    for piece in turn:
        reply.add(piece)
    reply.calls, reply.cut, reply.tokens = turn.calls, turn.cut, turn.tokens
    return reply


def zoom(
    model: Model,
    messages: Conversation,
    settings: Zoom | None = None,
    *,
    seed: int = 0,
    tokens: int | None = None,
    word_temperature: float | None = None,
    word_top_k: int | None = None,
    word_top_p: float | None = None,
    repetition_penalty: float | None = None,
    stop: str | Sequence[str] | None = None,
) -> ZoomedAnswer:
    """Answer a conversation in words, looking twice at the last image that was shown (DualFocus).

    settings: how the model is asked for the part to look at. The other arguments and errors are those of `Turn`.
    """
    if settings is not None and not isinstance(settings, Zoom):
        raise ChiasmError.of("settings", f"it must be a chiasm.inference.zoom.Zoom, not {quoted(settings)}")
    options = sampling_of(
        model,
        tokens=tokens,
        word_temperature=word_temperature,
        word_top_k=word_top_k,
        word_top_p=word_top_p,
        repetition_penalty=repetition_penalty,
        stop=stop,
    )
    sample = Sample("the conversation", tuple(as_messages(messages)))
    return zoom_samples(
        model,
        [sample],
        settings,
        tokens=options.answer_tokens,
        sampling=options.of_words,
        seed=check_seed(seed),
    )[0]


def synthesise(model: Model, modality: str, prompt: Conversation, *, seed: int = 0) -> Float[np.ndarray, ...]:
    """The signal with which a model answers a conversation that asks for one.

    modality: its name in the recipe. prompt: words, or messages as `Turn` takes them, the last of them the user's.
    seed: of what is drawn at random, if anything is.
    Raises ChiasmError for a modality that the model has not, DataError where the last message is an answer, and as
    `Turn` does.
    """
    sample = Sample("the conversation", tuple(as_messages(prompt)))
    return synthesise_all(model, modality, [sample], [check_seed(seed)])[0]


class Turn(Iterator["str | Image.Image"]):
    """An answer in the making: an iterator of text and images, piece by piece.

    Whatever stops it (Ctrl-C, an exception, a loop that is left), iterating again goes on where it stood, within a
    half-drawn image too.

    Args:
        messages: a question, or messages as `{"role": "user", "content": ["What is this?", "cat.png"]}`, whose
            content is text, or a list of text and images, or a record of any form that data files may have
            (docs/data.md). An image is a PIL object, bytes, a path as a string of its own, or `{"image": path}`;
            `{"text": words}` is never taken for a path.
        seed: of the words, and of the first image that is drawn; each further image has the next.
        tokens: most tokens of the answer; an image counts as the one that begins it.
        guidance, temperature, top_k, top_p: of the images.
        word_temperature, word_top_k, word_top_p, repetition_penalty: of the words, which are the likeliest unless
            these say otherwise.
        stop: a text, or several, any of which ends the answer and is no part of it.
        tools: that the answer may call, as `{"type": "function", "function": {"name": ..., "description": ...,
            "parameters": JSON schema}}`; its calls stand in `calls` once it has ended, and go back as `tool_calls`
            of the assistant's message, with the answer of each as a message of the role `tool`.
        engine: the engine that makes the answer beside others; None: one of its own.

    Raises DataError for an image that cannot be read or a conversation longer than the context, and ChiasmError for
    an option out of range. None as an option is what the model's recipe has.
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
        top_p: float | None = None,
        word_temperature: float | None = None,
        word_top_k: int | None = None,
        word_top_p: float | None = None,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        engine: Engine | None = None,
    ):
        options = sampling_of(
            model,
            tokens=tokens,
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            word_temperature=word_temperature,
            word_top_k=word_top_k,
            word_top_p=word_top_p,
            repetition_penalty=repetition_penalty,
            stop=stop,
        )
        sample = Sample("the conversation", tuple(as_messages(messages)), tools=declared(tools))
        prompt = document(model.contract, sample, prompt=True)
        self._request = requests.Conversation(model, prompt, options, check_seed(seed))
        self._called = CalledTools.of(model.contract.tokenizer, sample)
        self._pieces: deque[str | Image.Image] = deque()
        self._engine = engine or Engine(model)
        self._handle = self._engine.submit(self._request)

    @property
    def cut(self) -> bool:
        """Whether a limit (of tokens, or the context) came before the answer's end."""
        return self._request.cut

    @property
    def tokens(self) -> int:
        """Of the answer so far; an image counts as its positions."""
        return self._request.tokens

    @property
    def ended(self) -> bool:
        return self._handle.done and not self._handle.request.pieces and not self._pieces

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Of tools, once the answer has ended."""
        return self._called.calls if self._called is not None else ()

    def __next__(self) -> str | Image.Image:
        if self._handle.error is not None:  # iterating again tries again
            self._handle = self._engine.submit(self._handle.request)
        if self._called is None:
            return next(self._handle)
        while not self._pieces:
            try:
                self._pieces += self._called.feed(next(self._handle))
            except StopIteration:
                self._pieces += self._called.finish()
                if not self._pieces:
                    raise
        return self._pieces.popleft()


def as_messages(messages: Conversation) -> list[Message]:
    """Messages in the forms that `chat` takes; raises DataError naming what is not understood."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, Mapping | list | tuple):
        raise DataError(f"the conversation is {excerpt(messages)}; it must be text, or a list of messages")
    if not messages:
        raise DataError("the conversation is empty")
    record = messages if isinstance(messages, Mapping) else {"messages": list(messages)}
    read = link_answers(_READER.messages(record, "the conversation"))
    if not read or any(message.role == "document" for message in read):
        raise DataError("the conversation must have turns of the roles system, user and assistant")
    if read[-1].is_blank:
        raise DataError(f"the conversation, turn {len(read)} is empty: there is nothing to answer", "turns")
    return read


class _Reader(RecordReader):
    """Takes a bare string of a user for words or for a path, but never guesses among words.

    It reads calls of tools and their answers too.
    """

    def _message(self, turn: Any, where: str, supply: Any) -> Message:
        if isinstance(turn, Mapping) and turn.get("role") == "tool":
            return self._tool_answer(turn, where, supply)
        if isinstance(turn, Mapping) and "tool_calls" in turn:
            return self._with_calls(turn, where, supply)
        return super()._message(turn, where, supply)

    def _tool_answer(self, turn: Mapping[str, Any], where: str, supply: Any) -> Message:
        plain = {key: value for key, value in turn.items() if key not in ("tool_call_id", "name")}
        for key in turn.keys() - plain.keys():
            if turn[key] is not None and not isinstance(turn[key], str):
                raise DataError(f"{where} has the {key} {excerpt(turn[key])}; it must be text")
        if isinstance(turn.get("content"), str):  # words, whatever they look like
            plain["content"] = [{"text": turn["content"]}]
        message = super()._message({**plain, "role": "user"}, where, supply)
        call = ToolCall(turn.get("name") or "", {}, turn.get("tool_call_id") or "")
        return replace(message, role="tool", call=call)

    def _with_calls(self, turn: Mapping[str, Any], where: str, supply: Any) -> Message:
        plain = {key: value for key, value in turn.items() if key != "tool_calls"}
        if turn.get("content") is None:
            plain["content"] = ""
        calls = calls_of([] if turn["tool_calls"] is None else turn["tool_calls"], f"{where}.tool_calls")
        if calls and turn.get("role") != "assistant":
            raise DataError(f"{where} calls tools, which only an assistant does", "role")
        return replace(super()._message(plain, where, supply), calls=calls)

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

    def _words(self, text: str, where: str, supply: Any, *, item: bool = False) -> Iterator[str | Media]:
        if not item:
            check_placeholders(text, where, 'words that only look like one are given as {"text": words}')
        return supply.fill(text)


_READER = _Reader(References())
