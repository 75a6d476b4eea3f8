"""Text to ids and back, and messages to ids: a thin layer over transformers' fast tokenizers.

A conversation is rendered by the tokenizer's own chat template and tokenized as a whole, so that what a pretrained
language model reads is what it was trained on; labels are cut from it by where its tokens stand in the text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from chiasm.data.sample import Message
from chiasm.errors import CheckpointError, DataError, RecipeError
from chiasm.language.calling import CallForm
from chiasm.language.conversations import BARE_TEMPLATE, Conversations
from chiasm.language.runs import TextRun, Tokens
from chiasm.language.special import TOKEN
from chiasm.language.templates import ADDED, NAMED, PLAIN
from chiasm.language.tokenizer_folder import load_tokenizer, save_tokenizer, stop_ids
from chiasm.language.trained import SPECIAL, trained

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DRAW = "<|draw|>"  # begins a picture that the model makes
NUMBER, ORDINAL = "{number}", "{ordinal}"  # in what stands before a picture that is read; from 0, from 1
PLAIN_TEMPLATE = PLAIN

Empty = Literal["begin", "template", "padded", "hidden", "blank"]  # see `TextTokenizer.emptied`


class TextTokenizer:
    """A fast tokenizer with a chat template.

    draw: the id that begins a written picture; None = none does, or the model draws none (see `mark_pictures`).
    drawn: the id that stands behind a written picture; None = none does.
    """

    def __init__(self, inner: PreTrainedTokenizerBase, stops: Iterable[int] = ()):
        """stops: ids that end an answer beside the tokenizer's own end and what the chat template writes."""
        self.inner = inner
        self.draw: int | None = None
        self.drawn: int | None = None
        self.empty: Empty = "begin"
        self._before_read: tuple[int, ...] = ()
        self._numbered = ""
        self.behind_read: tuple[int, ...] = ()
        self.stops = frozenset(stops)
        self._conversations = Conversations(inner)

    @classmethod
    def of(
        cls,
        source: str | Path | None,
        texts: Iterable[str],
        vocabulary: int,
        *,
        template: str | None = None,
        work: float = 1.0,
        plain: bool = False,
    ) -> TextTokenizer:
        """From a folder or hub name; without one it is trained on texts.

        template: see `use_template`; None = its own. work: see `allow_work`. plain: a loaded one without either
        template gets the plain one.
        """
        if source:
            tokenizer = cls.load(source, plain=plain and template is None)
        else:
            tokenizer = cls.train(texts, vocabulary)
        if template is not None:
            tokenizer.use_template(template)
        tokenizer.allow_work(work)
        return tokenizer

    @classmethod
    def load(cls, folder: str | Path, *, plain: bool = False) -> TextTokenizer:
        """From a folder with tokenizer.json; raises CheckpointError.

        plain: without a chat template of its own it gets the plain one (`use_template`), else none.
        """
        loaded = cls(load_tokenizer(folder), stop_ids(folder))
        if plain and loaded.inner.chat_template is None:
            loaded.use_template("plain")
        return loaded

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> TextTokenizer:
        """A byte-level BPE of at most `vocabulary` tokens; any text can be written with it."""
        pad, begin, end, _ = SPECIAL
        fast = PreTrainedTokenizerFast(
            tokenizer_object=trained(texts, vocabulary), pad_token=pad, bos_token=begin, eos_token=end
        )
        fast.chat_template = PLAIN_TEMPLATE
        return cls(fast)

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

    def use_template(self, template: str) -> None:
        """Take a chat template in place of the tokenizer's own: a name of `NAMED`, or a Jinja file.

        plain: what the user says, <|answer|>, the answer, and the end. A token that a template needs is added where
        it is not there.
        Raises CheckpointError.
        """
        if template in NAMED:
            for token in ADDED.get(template, ()):
                self._special(token)
            self.inner.chat_template = NAMED[template]
            return
        try:
            self.inner.chat_template = Path(template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"no chat template can be read from {template}: {error}; by name there are {', '.join(NAMED)}"
            ) from None

    def allow_work(self, times: float) -> None:
        """Let a chat template do so many times the usual work; see `chiasm.language.template`."""
        self._conversations.work = times

    def date(self, day: datetime) -> None:
        """Have chat templates that print today's date print this one, so that a run can be repeated."""
        self._conversations.day = day

    def save(self, folder: Path) -> None:
        save_tokenizer(self.inner, folder, self.stops)

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def end(self) -> int:
        """The id that ends a document, and an answer where the chat template has no other end."""
        return self._conversations.end

    @property
    def begin(self) -> int:
        """The id that begins a document; the end marker where a tokenizer has none."""
        return self._conversations.begin

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
        """Say what stands before and behind a picture that an encoder reads: a token each, added where it lacks.

        begin: or a text with `{number}`, which is how many pictures of the document stand before this one, or with
            `{ordinal}`, which is one more.
        """
        self._numbered = begin if begin is not None and is_numbered(begin) else ""
        self._before_read = () if begin is None or self._numbered else (self._special(begin),)
        self.behind_read = () if end is None else (self._special(end),)

    def before_read(self, number: int) -> tuple[int, ...]:
        """What stands before picture `number`, from 0, of a document."""
        text = self._numbered.replace(NUMBER, str(number)).replace(ORDINAL, str(number + 1))
        return self.encode(text) if text else self._before_read

    def add_special(self, tokens: Iterable[str]) -> None:
        """Make these tokens of the vocabulary, where they are not."""
        for token in tokens:
            self._special(token)

    def emptied(self, prompt: Sequence[int]) -> list[int]:
        """What stands in place of a prompt in the rows of guidance that have none.

        The begin token alone; the template round no words; or the prompt with padding for all but its first token
        (and the marker of the picture behind it), which an image may see or not (`hides`), or for all.
        """
        if self.empty in ("padded", "hidden") and prompt:
            return [prompt[0]] + [self.pad] * (len(prompt) - 1)
        if self.empty == "blank" and prompt:
            return [self.pad] * len(prompt)
        if self.empty == "template":
            runs = self.tokens([Message("user", ("",))], prompt=True, draws=True)
            return [id for run in runs for id in run.ids]
        return [self.begin]

    @property
    def hides(self) -> bool:
        """Whether an image sees nothing of what stands in place of a prompt but its first token."""
        return self.empty == "hidden"

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

    @property
    def ends(self) -> frozenset[int]:
        """The ids any of which ends an answer: its own end, the template's, and those of the model's settings."""
        written = TOKEN.findall(self._conversations.end_of_answers())
        return self.stops | {self.end} | {int(id) for id in written}

    @property
    def end_text(self) -> str:
        """What ends an answer where the template writes no special token behind one; "" where it writes one."""
        end = self._conversations.end_of_answers()
        return "" if TOKEN.search(end) else end

    def decode(self, ids: Sequence[int]) -> str:
        text = self.inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    @property
    def lead(self) -> str:
        """The words of the chat template's own with which an answer begins, no part of what is answered:
        `<think>\n\n</think>` of Qwen3; "" where it writes none.
        """
        return self._conversations.lead_of_answers()

    def answer(self, ids: Sequence[int]) -> tuple[str, bool]:
        """The text of an answer, without its `lead`, up to what ends it, and whether that is there."""
        ends = self.ends
        stop = next((i for i, id in enumerate(ids) if id in ends), None)
        text, ended = self.decode(ids[:stop]), stop is not None
        if self.end_text and self.end_text in text:
            text, ended = text[: text.index(self.end_text)], True
        if lead := self.lead:
            stripped = text.lstrip()
            if stripped.startswith(lead):
                return stripped[len(lead) :], ended
            if not ended and lead.startswith(stripped):
                return "", ended
        return text, ended

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a text in which special tokens are special; see `encode_plain`."""
        return self._conversations.encode(text)

    def piece(self, name: str) -> int:
        """The id of a piece of the vocabulary, by the tokenizer's own name of it: `<0x0A>` is Llama's line end.

        Raises RecipeError for a name that it has not.
        """
        id: int | None = self.inner.convert_tokens_to_ids(name)  # type: ignore[assignment]
        if id is None or self.inner.convert_ids_to_tokens(id) != name:
            raise RecipeError(
                f"the text tokenizer has no piece {name!r}; name one as its vocabulary has it (a line ends with "
                "<0x0A> in Llama's, with Ċ in those of GPT-2's kind)"
            )
        return id

    def encode_plain(self, text: str) -> tuple[int, ...]:
        """Ids of somebody's text, in which nothing is special."""
        return self._conversations.encode_plain(text)

    def runs(
        self, messages: Sequence[Message], *, prompt: bool = False, draws: bool = False
    ) -> list[TextRun]:
        """What the messages look like to the language model; see `tokens`."""
        return self._conversations.runs(messages, prompt=prompt, draws=draws)

    def tokens(
        self,
        messages: Sequence[Message],
        *,
        prompt: bool = False,
        draws: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[Tokens]:
        """The messages as ids and pictures; with `prompt`, an answer is asked for at the end.

        draws: that answer is, or shall be, a picture. tools: that may be called in it, as declarations.
        Raises DataError when the chat template cannot take the messages, or, without `prompt`, where what is learnt
        has letters for which there is no token.
        """
        return self._conversations.tokens(messages, prompt=prompt, draws=draws, tools=tools)

    @property
    def knows_tools(self) -> bool:
        """Whether the chat template has tools, and calls of them in a form that is read."""
        try:
            return bool(self.call_form.name)
        except DataError:
            return False

    @property
    def call_form(self) -> CallForm:
        """How answers call tools; raises DataError where the chat template knows none."""
        return self._conversations.call_form


def is_numbered(begin: str) -> bool:
    """Whether what stands before a picture that is read is a text that counts pictures, and no token."""
    return NUMBER in begin or ORDINAL in begin
