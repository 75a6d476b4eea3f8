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
from typing import Literal

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from chiasm.data.sample import Message, Picture
from chiasm.errors import CheckpointError, DataError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DRAW = "<|draw|>"  # begins a picture that the model makes
PICTURES = "<|pictures|>"  # in a chat template: the pictures of the message behind it
ANSWER = "<|answer|>"  # of tokenizers trained here: ends what the user says
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}" + ANSWER + "{% elif message['role'] == 'assistant' %}{{ eos_token }}"
    "{% else %}\n{% endif %}{% endfor %}"
)
BARE_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


Empty = Literal["begin", "template", "padded", "blank"]  # see `TextTokenizer.emptied`


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

    Where the tokenizer has a chat template named "draw" beside its own, prompts for pictures are written with it.
    A template may say with PICTURES where the pictures of the message behind it stand; else they stand where the
    message has them.
    """

    def __init__(self, inner: PreTrainedTokenizerBase):
        if inner.chat_template is None:
            inner.chat_template = PLAIN_TEMPLATE
        self.inner = inner
        self.draw: int | None = None
        self.drawn: int | None = None
        self.empty: Empty = "begin"
        self.before_read: tuple[int, ...] = ()
        self.behind_read: tuple[int, ...] = ()
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
        return cls._of_words([*map(str, range(count)), "<|no class|>"])

    @classmethod
    def wordless(cls) -> TextTokenizer:
        """For models of pictures alone: its only token stands in no document."""
        return cls._of_words(["<|no word|>"])

    @classmethod
    def _of_words(cls, words: Sequence[str]) -> TextTokenizer:
        """One id a word, the last for all others; a document is what its messages hold and nothing else."""
        from tokenizers import Tokenizer, models, pre_tokenizers

        none = words[-1]
        inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=none))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=none, eos_token=none)
        fast.chat_template = BARE_TEMPLATE
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

    @property
    def pad(self) -> int:
        """The id of padding; the end marker where a tokenizer has none."""
        id = self.inner.pad_token_id
        return self.end if id is None else int(id)  # type: ignore[arg-type]

    def mark_pictures(self, begin: str | None = DRAW, end: str | None = None, empty: Empty = "begin") -> None:
        """Say which tokens stand before and behind a written picture; one that is not there is added.

        begin None: a picture follows what stands before it at once, as in models that only draw.
        """
        self.draw = None if begin is None else self._special(begin)
        self.drawn = None if end is None else self._special(end)
        self.empty = empty

    def mark_read(self, begin: str | None, end: str | None) -> None:
        """Say which tokens stand before and behind a picture that an encoder reads."""
        self.before_read = () if begin is None else (self._special(begin),)
        self.behind_read = () if end is None else (self._special(end),)

    def emptied(self, prompt: Sequence[int]) -> list[int]:
        """What stands in place of a prompt in the rows of guidance that have none.

        The begin token alone; the template round no words; or the prompt with padding for all but its first token
        (and the marker of the picture behind it), or for all.
        """
        if self.empty == "padded" and prompt:
            return [prompt[0]] + [self.pad] * (len(prompt) - 1)
        if self.empty == "blank" and prompt:
            return [self.pad] * len(prompt)
        if self.empty == "template":
            runs = self.runs([Message("user", ("",))], prompt=True, draws=True)
            return [id for run in runs for id in self.encode(run.text)]
        return [self.begin]

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
        if self._bare and self.begin in ids:
            known = f"draws the classes 0 to {self.begin - 1}" if self.begin else "knows pictures alone"
            raise DataError(f"{text!r} is {'no class' if self.begin else 'text'}: this model {known}")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text = self.inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def runs(self, messages: Sequence[Message], *, prompt: bool = False, draws: bool = False) -> list[Run]:
        """What the messages look like to the language model; with `prompt`, an answer is asked for at the end.

        draws: that answer is, or shall be, a picture.
        Raises DataError when the chat template cannot take the messages.
        """
        if messages and messages[0].role == "document":
            return self._document(messages)
        form = "draw" if draws and self._has_draw_template else "default"
        roles = (form, *(message.role for message in messages), *(["prompt"] if prompt else []))
        pieces = self._pieces.get(roles) or self._learn_pieces(roles, messages, prompt)
        runs: list[Run] = [Run(pieces[0], learn=False)]
        for message, after in zip(messages, pieces[1:], strict=True):
            learn = message.role == "assistant" and message.learnt
            said = [
                Run("", learn, item) if isinstance(item, Picture) else Run(item, learn)
                for item in message.content
            ]
            runs = _ahead(runs, said) + self._after(after, learn)
        return _joined(runs)

    @property
    def _has_draw_template(self) -> bool:
        return isinstance(self.inner.chat_template, dict) and "draw" in self.inner.chat_template

    def _document(self, messages: Sequence[Message]) -> list[Run]:
        if len(messages) > 1:
            raise DataError("a message of role 'document' must stand alone")
        content = messages[0].content
        pictures_alone = all(isinstance(item, Picture) for item in content)
        items = [
            Run("", pictures_alone, item) if isinstance(item, Picture) else Run(item, True)
            for item in content
        ]
        if self._bare:
            return _joined(items)
        begin, end = (str(self.inner.decode([id])) for id in (self.begin, self.end))
        return _joined([Run(begin, False), *items, Run(end, True)])

    @property
    def _bare(self) -> bool:
        return self.inner.chat_template == BARE_TEMPLATE

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
        turns = [(m.role, mark) for m, mark in zip(messages, marks, strict=True)]
        text = self._render(turns, prompt, roles[0])
        pieces = []
        for mark in marks:
            if text.count(mark) != 1:
                raise DataError(
                    f"the chat template drops or repeats a message of the roles {', '.join(roles[1:])}"
                )
            piece, text = text.split(mark)
            pieces.append(piece)
        pieces.append(text)
        self._pieces[roles] = pieces
        return pieces

    def _render(self, messages: Sequence[tuple[str, str]], prompt: bool, form: str) -> str:
        turns = [{"role": role, "content": content} for role, content in messages]
        named = form if isinstance(self.inner.chat_template, dict) else None
        try:
            text = self.inner.apply_chat_template(
                turns, chat_template=named, tokenize=False, add_generation_prompt=prompt
            )
            return str(text)
        except Exception as error:  # templates raise what they like
            raise DataError(f"the chat template refuses these messages: {error}") from None


def _ahead(runs: list[Run], said: list[Run]) -> list[Run]:
    """A message behind the template's text, its pictures where that text wants them."""
    before, wanted, behind = runs[-1].text.partition(PICTURES)
    if not wanted:
        return runs + said
    pictures = [run for run in said if run.picture is not None]
    words = [run for run in said if run.picture is None]
    last = runs[-1]
    return [*runs[:-1], Run(before, last.learn), *pictures, Run(behind, last.learn), *words]


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
