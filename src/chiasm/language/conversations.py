"""Conversations as ids: rendered by the chat template, tokenized as a whole, and cut into what is learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from transformers import PreTrainedTokenizerBase

from chiasm.data.sample import Media, Message, ToolCall
from chiasm.errors import CheckpointError, DataError
from chiasm.language.calling import CallForm, find_form
from chiasm.language.runs import TextRun, Tokens, between_pictures, cut_runs, joined, tokenized
from chiasm.language.special import CLOSE, OPEN, READ, TOKEN, WRITTEN, SpecialTokens
from chiasm.language.turns import TemplateTurn, Turns

BARE_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
# What stands for an image in the tokenizers of public models, where they do not say it themselves.
IMAGE_TOKENS = (
    *("<image>", "<|image_pad|>", "<image_soft_token>", "<|image|>", "<image_placeholder>", "[IMG]"),
    "<IMG_CONTEXT>",
)


class Conversations:
    """A tokenizer's way with conversations.

    Where it has a chat template named "draw" beside its own, prompts for pictures are written with it. A template
    may say with `IMAGES_AHEAD` where the pictures of the message behind it stand; else they stand where the message
    has them, or where the template writes what stands for them.
    """

    def __init__(self, inner: PreTrainedTokenizerBase):
        self.inner = inner
        self.work = 1.0  # see `chiasm.language.template.render`
        self.day: datetime | None = None  # what templates take for today; None = the clock's
        self._known: dict[str, tuple[Any, Any]] = {}  # what was worked out, with the state of which it holds

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_known": {}}  # another process works it out for itself

    @property
    def end(self) -> int:
        """The id that ends a document."""
        id = self.inner.eos_token_id
        if id is None:
            raise CheckpointError("the text tokenizer names no token that ends a text (eos_token)")
        return int(id)  # type: ignore[arg-type]

    @property
    def begin(self) -> int:
        """The id that begins a document; the end marker where a tokenizer has none."""
        id = self.inner.bos_token_id
        return self.end if id is None else int(id)  # type: ignore[arg-type]

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a text in which special tokens are special; see `encode_plain`."""
        ids = tuple(self.inner.encode(text, add_special_tokens=False))
        if self.bare and self.begin in ids:
            ability = (
                f"draws the classes 0 to {self.begin - 1}"
                if self.begin
                else "knows pictures alone (its vocabulary is 0)"
            )
            raise DataError(f"{text!r} is {'no class' if self.begin else 'text'}: this model {ability}")
        return ids

    def encode_plain(self, text: str) -> tuple[int, ...]:
        """Ids of somebody's text, in which nothing is special."""
        if self.bare:
            return self.encode(text)
        special = self.special
        ids, _ = special.encode(special.mark(special.protect(text)))
        return tuple(id for id in ids if id is not None)

    def runs(
        self, messages: Sequence[Message], *, prompt: bool = False, draws: bool = False
    ) -> list[TextRun]:
        """What the messages look like to the language model; with `prompt`, an answer is asked for at the end.

        draws: that answer is, or shall be, a picture.
        Raises DataError when the chat template cannot take the messages.
        """
        special = self.special
        return [
            TextRun(special.plain(run.text), run.learn, run.media)
            for run in self._marked(messages, prompt, draws)
        ]

    def tokens(
        self,
        messages: Sequence[Message],
        *,
        prompt: bool = False,
        draws: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[Tokens]:
        """The same tokenized: as a whole, but for the pictures; see `SpecialTokens`."""
        runs = self._marked(messages, prompt, draws, tools)
        if self.bare:
            return [Tokens(self.encode(run.text), run.learn, run.media) for run in runs]
        begin = [] if messages[0].role == "document" else self._begin_of_processor(runs)
        stretches = [runs] if self.special.together else between_pictures(runs)
        words_follow = prompt and not draws
        written_tokens = [
            each
            for stretch in stretches
            for each in tokenized(
                stretch,
                self.special,
                continued=words_follow and stretch is stretches[-1],
                whole=not prompt,
            )
        ]
        return ([Tokens(begin, False)] if begin else []) + written_tokens

    def _marked(
        self,
        messages: Sequence[Message],
        prompt: bool,
        draws: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[TextRun]:
        """The runs of a conversation in marked text; see `chiasm.language.special`."""
        if messages and messages[0].role == "document":
            return self._document(messages)
        form = "draw" if draws and self._has_draw_template else "default"
        if tools or any(message.calls or message.call for message in messages):
            _ = self.call_form  # which raises where the template knows no tools
        declared = [self._protected(tool) for tool in tools]
        rendered = self._turns(form).render(
            [self._turn(message) for message in messages], prompt=prompt, tools=declared
        )
        images = [(_learns(message), item) for message in messages for item in message.content]
        read, written = (
            [item for learns, item in images if learns == wanted and isinstance(item, Media)]
            for wanted in (False, True)
        )
        return cut_runs(rendered, read, written)

    def _turn(self, message: Message) -> TemplateTurn:
        calls = tuple(self._protected_call(call) for call in message.calls)
        call = None if message.call is None else self._protected_call(message.call)
        return TemplateTurn(message.role, self._text(message), _learns(message), calls, call)

    def _protected_call(self, call: ToolCall) -> ToolCall:
        words = self._protected
        return replace(call, name=words(call.name), arguments=words(call.arguments), id=words(call.id))

    def _protected(self, value: Any) -> Any:
        """A value of JSON, nothing in whose texts is special."""
        if isinstance(value, str):
            return self.special.protect(value)
        if isinstance(value, Mapping):
            return {self._protected(key): self._protected(each) for key, each in value.items()}
        return [self._protected(each) for each in value] if isinstance(value, list | tuple) else value

    @property
    def call_form(self) -> CallForm:
        """How calls of tools are written; raises DataError where the chat template knows none."""
        return self._cached("calls", self._find_call_form)  # type: ignore[no-any-return]

    def _find_call_form(self) -> CallForm:
        turns = self._find_turns("default", mark=lambda text: text)
        hidden = [str(token) for token in self.inner.added_tokens_decoder.values() if token.special]
        return find_form(turns, hidden, self.lead_of_answers())

    def _text(self, message: Message) -> str:
        mark = WRITTEN if _learns(message) else READ
        return "".join(mark if isinstance(i, Media) else self._words(message, i) for i in message.content)

    def _words(self, message: Message, text: str) -> str:
        special = self.special
        return special.checked(text) if message.special_tokens else special.protect(text)

    def _document(self, messages: Sequence[Message]) -> list[TextRun]:
        if len(messages) > 1:
            raise DataError("a message of role 'document' must stand alone")
        content = messages[0].content
        special = self.special
        media_alone = all(isinstance(item, Media) for item in content)
        items = [
            TextRun("", media_alone, item)
            if isinstance(item, Media)
            else TextRun(special.mark(self._words(messages[0], item)), True)
            for item in content
        ]
        if self.bare:
            return joined(items)
        begin, end = (f"{OPEN}{id}{CLOSE}" for id in (self.begin, self.end))
        return joined([TextRun(begin, False), *items, TextRun(end, True)])

    def _begin_of_processor(self, runs: Sequence[TextRun]) -> list[int]:
        """What the tokenizer puts before every text, where the template leaves it to the processor."""
        there = bool(runs) and runs[0].text.startswith(f"{OPEN}{self.inner.bos_token_id}{CLOSE}")
        return self._cached("begin", self._find_begin) if self._turns("default").parts and not there else []

    def _find_begin(self) -> list[int]:
        with_them, without = (list(self.inner.encode("a", add_special_tokens=each)) for each in (True, False))
        return with_them[: with_them.index(without[0])] if without else []

    @property
    def bare(self) -> bool:
        return self.inner.chat_template == BARE_TEMPLATE

    @property
    def _has_draw_template(self) -> bool:
        return isinstance(self.inner.chat_template, dict) and "draw" in self.inner.chat_template

    @property
    def special(self) -> SpecialTokens:
        return self._cached("special", self._find_special_tokens)

    def _find_special_tokens(self) -> SpecialTokens:
        image = self.image_token
        structural = {image} if image else set()
        if self.inner.chat_template is not None:
            plain = self._find_turns("default", mark=lambda text: text)
            try:
                around = plain.render([TemplateTurn("user", "")], prompt=True).text
            except DataError:
                around = ""
            added = [str(token) for token in self.inner.added_tokens_decoder.values()]
            structural |= {token for token in added if token.strip() and token in around}
        return SpecialTokens(self.inner, structural, image)

    @property
    def image_token(self) -> str | None:
        """The token that stands for a picture in the text of a model that looks at them."""
        own = getattr(self.inner, "image_token", None)
        names = [own] if isinstance(own, str) else IMAGE_TOKENS
        vocabulary = self.inner.get_added_vocab()
        return next((name for name in names if name in vocabulary), None)

    def _turns(self, form: str) -> Turns:
        return self._cached(f"turns {form}", lambda: self._find_turns(form, self.special.mark))

    def _find_turns(self, form: str, mark: Any) -> Turns:
        templates = self.inner.chat_template
        if templates is None:
            raise DataError(
                "this language model's tokenizer has no chat template; put a chat_template.jinja into its folder, "
                "or name one in the recipe (language.chat_template: FILE, or question, vicuna, plain, tools)"
            )
        template = templates if isinstance(templates, str) else templates.get(form)
        if template is None:
            raise DataError(f"the tokenizer has the chat templates {', '.join(templates)}, but no {form!r}")
        variables: dict[str, Any] = dict(self.inner.special_tokens_map)
        if self.day is not None:
            variables["strftime_now"] = lambda form, day=self.day: day.strftime(form)
        return Turns(template, variables, mark, self.image_token, self.work)

    def end_of_answers(self) -> str:
        """What the chat template writes behind an answer, marked; "" = nothing."""
        if self.inner.chat_template is None or self.bare:
            return ""
        return self._turns("default").end

    def lead_of_answers(self) -> str:
        """The words of the chat template's own with which an answer begins; "" = none."""
        if self.inner.chat_template is None or self.bare:
            return ""
        return TOKEN.sub("", self._turns("default").lead).strip()

    def _cached(self, name: str, work_out: Any) -> Any:
        """What `work_out` gives, until the tokenizer is given other tokens or another template."""
        state = (len(self.inner), str(self.inner.chat_template), self.work, self.day)
        if name not in self._known or self._known[name][0] != state:
            self._known[name] = (state, work_out())
        return self._known[name][1]


def _learns(message: Message) -> bool:
    return message.role == "assistant" and message.learnt
