"""Text to ids and back, and messages to text: a thin layer over transformers' fast tokenizers.

A message list becomes runs of text and pictures through the tokenizer's own chat template, so that what a
pretrained language model reads is what it was trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from chiasm.data.sample import Message, Picture
from chiasm.errors import CheckpointError, DataError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DRAW = "<|draw|>"  # begins a picture that the model makes
ANSWER = "<|answer|>"  # of tokenizers trained here: ends what the user says
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}" + ANSWER + "{% elif message['role'] == 'assistant' %}{{ eos_token }}"
    "{% else %}\n{% endif %}{% endfor %}"
)
CLASS_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Run:
    """A stretch of text that is learnt or not, or a picture that is read or written."""

    text: str
    learn: bool
    picture: Picture | None = None


class TextTokenizer:
    """A fast tokenizer with a chat template.

    draw: the id that begins a written picture; None = none does, or the model draws none (see `mark_pictures`).
    drawn: the id that stands behind a written picture; None = none does.
    """

    def __init__(self, inner: PreTrainedTokenizerBase):
        if inner.chat_template is None:
            inner.chat_template = PLAIN_TEMPLATE
        self.inner = inner
        self.draw: int | None = None
        self.drawn: int | None = None
        self._pieces: dict[tuple[str, ...], list[str]] = {}
        self.encode = lru_cache(maxsize=100_000)(self._encode)

    @classmethod
    def load(cls, folder: str | Path) -> TextTokenizer:
        """From a folder with tokenizer.json; raises CheckpointError."""
        try:
            return cls(AutoTokenizer.from_pretrained(folder))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"no tokenizer can be read from {folder}: {error}") from None

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> TextTokenizer:
        """A byte-level BPE of at most `vocabulary` tokens; any text can be written with it."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        special = ["<|pad|>", "<|begin|>", "<|end|>", ANSWER]
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(
            PreTrainedTokenizerFast(
                tokenizer_object=inner, pad_token=special[0], bos_token=special[1], eos_token=special[2]
            )
        )

    @classmethod
    def classes(cls, count: int) -> TextTokenizer:
        """For models that draw classes: a prompt is a number from 0, and no class has the id `count`."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        none = "<|no class|>"
        words = {str(i): i for i in range(count)} | {none: count}
        inner = Tokenizer(models.WordLevel(words, unk_token=none))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=none, eos_token=none)
        fast.chat_template = CLASS_TEMPLATE
        return cls(fast)

    def save(self, folder: Path) -> None:
        self.inner.save_pretrained(folder)

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def end(self) -> int:
        """The id that ends an answer."""
        return int(self.inner.eos_token_id)  # type: ignore[arg-type]

    @property
    def begin(self) -> int:
        """The id that begins a document; the end marker where a tokenizer has none."""
        id = self.inner.bos_token_id
        return self.end if id is None else int(id)  # type: ignore[arg-type]

    def mark_pictures(self, begin: str | None = DRAW, end: str | None = None) -> None:
        """Say which tokens stand before and behind a written picture; one that is not there is added.

        begin None: a picture follows what stands before it at once, as in models that only draw.
        """
        self.draw = None if begin is None else self._special(begin)
        self.drawn = None if end is None else self._special(end)

    @property
    def before_picture(self) -> tuple[int, ...]:
        return () if self.draw is None else (self.draw,)

    @property
    def behind_picture(self) -> tuple[int, ...]:
        return () if self.drawn is None else (self.drawn,)

    def _special(self, token: str) -> int:
        if token not in self.inner.get_vocab():
            extra = {"extra_special_tokens": [token]}
            self.inner.add_special_tokens(extra, replace_extra_special_tokens=False)  # type: ignore[arg-type]
        return int(self.inner.convert_tokens_to_ids(token))  # type: ignore[arg-type]

    def _encode(self, text: str) -> tuple[int, ...]:
        ids = tuple(self.inner.encode(text, add_special_tokens=False))
        if self.inner.chat_template == CLASS_TEMPLATE and self.begin in ids:
            raise DataError(f"{text!r} is no class: this model draws the classes 0 to {self.begin - 1}")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text = self.inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def runs(self, messages: Sequence[Message], *, prompt: bool = False) -> list[Run]:
        """What the messages look like to the language model; with `prompt`, an answer is asked for at the end.

        Raises DataError when the chat template cannot take the messages.
        """
        if messages and messages[0].role == "document":
            return self._document(messages)
        roles = (*(message.role for message in messages), *(["prompt"] if prompt else []))
        pieces = self._pieces.get(roles) or self._learn_pieces(roles, messages, prompt)
        runs: list[Run] = [Run(pieces[0], learn=False)]
        for message, after in zip(messages, pieces[1:], strict=True):
            learn = message.role == "assistant"
            runs += [
                Run("", learn, item) if isinstance(item, Picture) else Run(item, learn)
                for item in message.content
            ]
            runs += self._after(after, learn)
        return _joined(runs)

    def _document(self, messages: Sequence[Message]) -> list[Run]:
        if len(messages) > 1:
            raise DataError("a message of role 'document' must stand alone")
        begin, end = (str(self.inner.decode([id])) for id in (self.begin, self.end))
        items = [
            Run("", False, item) if isinstance(item, Picture) else Run(item, True)
            for item in messages[0].content
        ]
        return _joined([Run(begin, False), *items, Run(end, True)])

    def _after(self, piece: str, learn: bool) -> list[Run]:
        """The template's text behind a message: after an answer, its end marker is learnt, the rest is not."""
        end = self.inner.eos_token or ""
        if not learn or not end or end not in piece:
            return [Run(piece, learn=False)]
        head, tail = piece.split(end, 1)
        return [Run(head + end, learn=True), Run(tail, learn=False)]

    def _learn_pieces(self, roles: tuple[str, ...], messages: Sequence[Message], prompt: bool) -> list[str]:
        """The template's text before, between and after the contents, found once for each row of roles."""
        marks = [f"\ue000{i}\ue001" for i in range(len(messages))]
        text = self._render([(m.role, mark) for m, mark in zip(messages, marks, strict=True)], prompt)
        pieces = []
        for mark in marks:
            if text.count(mark) != 1:
                raise DataError(
                    f"the chat template drops or repeats a message of the roles {', '.join(roles)}"
                )
            piece, text = text.split(mark)
            pieces.append(piece)
        pieces.append(text)
        self._pieces[roles] = pieces
        return pieces

    def _render(self, messages: list[tuple[str, str]], prompt: bool) -> str:
        turns = [{"role": role, "content": content} for role, content in messages]
        try:
            return str(self.inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))
        except Exception as error:  # templates raise what they like
            raise DataError(f"the chat template refuses these messages: {error}") from None


def _joined(runs: Sequence[Run]) -> list[Run]:
    """Neighbouring text of one kind joined, so that it is tokenized as one string; empty text dropped."""
    joined: list[Run] = []
    for run in runs:
        last = joined[-1] if joined else None
        if run.picture is None and not run.text:
            continue
        if last and run.picture is None and last.picture is None and last.learn == run.learn:
            joined[-1] = Run(last.text + run.text, run.learn)
        else:
            joined.append(run)
    return joined
