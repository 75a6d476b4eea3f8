"""Where a conversation's answers begin and end in the text that its chat template makes of it.

A conversation is rendered as a whole. What is learnt of it begins where the same template, asked for an answer,
ends, and reaches to the end of what it writes behind one: a model learns to say what it is asked for, and to stop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from chiasm.data.sample import ToolCall
from chiasm.errors import DataError
from chiasm.language.special import END, READ, TOKEN, WRITTEN
from chiasm.language.template import render

# In a chat template: the images of the message behind it, wherever that has them. Nothing to transformers.
IMAGES_AHEAD = "{{ images_ahead }}"
# Likewise, in place of `message['content']`: a line ends behind every image, whether the message says so or not. To
# transformers it is the content as it stands.
IMAGE_LINES = f"(message['content'] | replace('{READ}\\n', '{READ}') | replace('{READ}', '{READ}\\n'))"
_AHEAD = "\ufdd8"  # what it is rendered as
_HOLDS = "\ufdd6"  # the content of a message in the templates' probes
_LIST = "\ufdd7"  # a content that a template prints as it is
NEAR = 8  # roles at both ends of a long row with which a template is asked what it writes round an answer
ROLES_KNOWN = 512  # rows of roles of which the pieces are kept


@dataclass(frozen=True)
class TemplateTurn:
    """A message: `text` is protected, with a READ or WRITTEN for each image, and so are its calls.

    calls, call: of tools, as in `chiasm.data.sample.Message`.
    """

    role: str
    text: str
    learnt: bool = True
    calls: tuple[ToolCall, ...] = ()
    call: ToolCall | None = None

    @property
    def calls_alone(self) -> bool:
        """Whether nothing is said beside calls, so that templates write no text of it."""
        return bool(self.calls) and not self.text

    def message(self, content: Any) -> dict[str, Any]:
        """As templates take it."""
        called: dict[str, Any] = {}
        if self.calls:
            called["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.calls
            ]
        if self.call is not None:
            called |= {"name": self.call.name, "tool_call_id": self.call.id}
        return {"role": self.role, "content": content, **called}


@dataclass(frozen=True)
class Rendered:
    """Marked text, and the stretches of it that are learnt."""

    text: str
    learnt: list[tuple[int, int]]


class Turns:
    """A chat template of a tokenizer.

    mark: marks the special tokens of rendered text. image: what the template writes for an image, where it takes
    contents as lists of parts. work: see `chiasm.language.template.render`.
    """

    def __init__(
        self,
        template: str,
        variables: dict[str, Any],
        mark: Callable[[str], str],
        image: str | None,
        work: float = 1.0,
    ):
        self.template, self.mark, self.image, self.work = template, mark, image, work
        self.variables = {**variables, "images_ahead": _AHEAD}
        self._tail = lru_cache(ROLES_KNOWN)(self._find_tail)
        self._end = lru_cache(ROLES_KNOWN)(self._find_end)
        self._gap = lru_cache(ROLES_KNOWN)(self._find_gap)
        self.parts = self._takes_parts()

    def render(self, turns: Sequence[TemplateTurn], *, prompt: bool, tools: Sequence[Any] = ()) -> Rendered:
        """The conversation; with `prompt`, up to where an answer is asked for, of which nothing is learnt.

        tools: that may be called, as declarations, protected.
        Raises DataError when the template drops a message, or what it asks is not how it writes an answer.
        """
        pieces = self._pieces(turns, prompt, tools)
        if prompt:
            # A space behind what asks belongs to the answer's first token.
            return Rendered("".join(pieces).rstrip(" "), [])
        places = [sum(not turn.calls_alone for turn in turns[:i]) for i in range(len(turns))]
        starts: dict[int, int] = {}
        rows = list(short_rows([turn.role for turn in turns]))
        for i, turn in enumerate(turns):
            if turn.role == "assistant" and turn.learnt and not turn.calls:
                piece = pieces[places[i]]
                starts[i] = self._start(turns, i, piece, rows[i])
                blank = re.match(f" *(?={WRITTEN})", piece[starts[i] :])
                if blank is not None:  # an image stands directly behind what asks for it
                    pieces[places[i]] = piece[: starts[i]] + piece[starts[i] + blank.end() :]
        offsets = [0]
        for piece in pieces:
            offsets.append(offsets[-1] + len(piece))
        text = "".join(pieces)
        learnt = []
        for i, turn in enumerate(turns):
            if i in starts:
                stop = self._stop(turns, i, pieces[places[i] + 1], rows[i + 1])
                learnt.append((offsets[places[i]] + starts[i], offsets[places[i] + 1] + stop))
            elif turn.calls and turn.learnt:
                learnt.append(self._called(turns[: i + 1], tools, text, rows[i + 1]))
        return Rendered(text, learnt)

    def _called(
        self, turns: Sequence[TemplateTurn], tools: Sequence[Any], text: str, roles: tuple[str, ...]
    ) -> tuple[int, int]:
        """Where in the text of a conversation the last of these turns stands, which calls tools."""
        asks = "".join(self._pieces(turns[:-1], True, tools)).rstrip(" ")
        called = "".join(self._pieces(turns, False, tools))
        end = called.rfind(self._end(roles)) + len(self._end(roles))
        if not (text.startswith(called[:end]) and called.startswith(asks) and len(asks) < end):
            raise DataError(
                f"the chat template writes the calls of turn {len(turns)} otherwise where more follows them: they "
                "cannot be learnt"
            )
        return len(asks), end

    @property
    def lead(self) -> str:
        """What the template writes of itself between what asks and an answer, such as `<think>\n\n</think>`."""
        try:
            asks = self._tail(("user",)).rstrip(" ")
            return self._gap(("user", "assistant")).removeprefix(asks).strip()
        except DataError:
            return ""

    @property
    def end(self) -> str:
        """The marked text behind an answer that ends it; "" = there is none."""
        try:
            return self._end(("user", "assistant"))
        except DataError:
            return ""

    def _pieces(self, turns: Sequence[TemplateTurn], prompt: bool, tools: Sequence[Any] = ()) -> list[str]:
        """The text up to the end of each message that says something, and behind the last."""
        ended = [turn if turn.calls_alone else replace(turn, text=_ended(turn.text)) for turn in turns]
        pieces = self._rendered(ended, prompt, tools).split(END)
        if len(pieces) != sum(not turn.calls_alone for turn in turns) + 1:
            roles = ", ".join(turn.role for turn in turns)
            raise DataError(f"the chat template drops or repeats a message of the roles {roles}")
        return pieces

    def _start(self, turns: Sequence[TemplateTurn], index: int, piece: str, roles: tuple[str, ...]) -> int:
        """Where in `piece`, which begins behind the message before, an answer begins; roles: of those before."""
        tail = self._tail(roles).rstrip(" ")
        if not self._gap((*roles, "assistant")).startswith(tail):
            raise DataError(
                f"the chat template asks for an answer with {_quoted(tail)} but writes "
                f"{_quoted(self._gap((*roles, 'assistant')))} before one: what is learnt would not be what is "
                "asked"
            )
        rest = _rest(turns[index - 1].text) if index else ""
        for before in (rest, ""):
            if piece.startswith(before + tail):
                return len(before + tail)
        start = piece.find(tail)
        if start < 0:
            raise DataError(
                f"the chat template does not write {_quoted(tail)} before the answer of turn {index + 1}"
            )
        return start + len(tail)

    def _stop(self, turns: Sequence[TemplateTurn], index: int, following: str, roles: tuple[str, ...]) -> int:
        """How much of what stands behind an answer's last letter is learnt; roles: of all up to the answer."""
        turn = turns[index]
        end = self._end(roles)
        words = turn.text.replace(WRITTEN, "")
        if not end and words.strip():
            raise DataError(
                "the chat template writes nothing behind an answer: a model would not learn to stop; name another "
                "in the recipe (language.chat_template: FILE, or question, vicuna, plain, tools)"
            )
        if end and TOKEN.search(end) is None and end in words.strip():
            raise DataError(f"an answer holds {end!r}, with which the chat template ends one")
        for rest in (_rest(turn.text), ""):
            if following.startswith(rest + end):
                return len(rest + end)
        raise DataError(
            f"the chat template ends the answer of turn {index + 1} with {_quoted(following)}, not with "
            f"{_quoted(end)}: a model would not learn to stop"
        )

    def _find_tail(self, roles: tuple[str, ...]) -> str:
        """What asks for an answer, behind the last message's text."""
        return self._probe(roles, prompt=True)[-1]

    def _find_end(self, roles: tuple[str, ...]) -> str:
        """What ends an answer: the template's text behind it up to its first special token, or all.

        A space ends none: words have it too.
        """
        following = self._probe(roles)[-1]
        special = TOKEN.search(following)
        end = following if special is None else following[: special.end()]
        return end if end.strip(" ") else ""

    def _find_gap(self, roles: tuple[str, ...]) -> str:
        """The template's text between the last message and the one before it."""
        return self._probe(roles)[-2].removesuffix(_HOLDS)

    def _probe(self, roles: tuple[str, ...], prompt: bool = False) -> list[str]:
        return self._pieces([TemplateTurn(role, _HOLDS) for role in roles], prompt)

    def _rendered(self, turns: Sequence[TemplateTurn], prompt: bool, tools: Sequence[Any] = ()) -> str:
        """Marked text, with the images where the template wants them and the ENDs of the messages."""
        marked = self.mark(self.text(turns, prompt=prompt, tools=tools))
        if self.parts and self.image is not None:
            marked = marked.replace(self.mark(self.image), READ)
        return _ahead(marked)

    def text(self, turns: Sequence[TemplateTurn], *, prompt: bool, tools: Sequence[Any] = ()) -> str:
        """What the template writes, as it is; raises DataError."""
        messages = [turn.message(_as_parts(turn.text) if self.parts else turn.text) for turn in turns]
        variables = self.variables | ({"tools": list(tools)} if tools else {})
        return render(self.template, messages, prompt=prompt, work=self.work, **variables)

    def _takes_parts(self) -> bool:
        """Whether contents are lists of parts: where images stand in them, or where nothing else is taken."""
        text_only, with_image = ([("user", list_of(kinds))] for kinds in (("text",), ("image", "text")))
        if self._prints(with_image) and self._prints(text_only) not in (None, self._prints(with_image)):
            return True
        return self._prints([("user", _HOLDS)]) is None and self._prints(text_only) is not None

    def _prints(self, turns: Sequence[tuple[str, Any]]) -> str | None:
        """The text of a conversation, or None where the template does not take it."""
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            text = render(self.template, messages, prompt=True, work=self.work, **self.variables)
        except DataError:
            return None
        return text if text.count(_HOLDS) == 1 and _LIST not in text else None


def _quoted(marked: str) -> str:
    """Marked text as an error shows it."""
    return repr(TOKEN.sub(r"<special token \1>", marked))


def short_rows(roles: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """For the first 0, 1, 2, ... of the roles, a short row of them behind which a template does the same.

    It keeps both ends. What lies between two messages of one role in the middle goes, where that is an even number
    of messages, and without those of the system too: templates look at roles, at the first messages and the last,
    and at whether a place is odd. Each answer is held against what is found so all the same.
    """
    middle: list[str] = []
    states: list[tuple[str, int, int]] = []
    talk = 0  # messages of the middle that are not the system's
    for count in range(len(roles) + 1):
        place = count - 1 - NEAR  # of the role that is near the end no longer
        if place >= NEAR:
            state = (roles[place], place % 2, talk % 2)
            talk += roles[place] != "system"
            if state in states:
                again = states.index(state)
                del middle[again:], states[again:]
            middle.append(roles[place])
            states.append(state)
        yield (*roles[: min(count, NEAR)], *middle, *roles[max(NEAR, count - NEAR) : count])


class _Parts(list[dict[str, str]]):
    """A content as a list of parts, which is to be read part by part."""

    def __str__(self) -> str:
        return _LIST

    __repr__ = __str__


def list_of(kinds: Sequence[str]) -> _Parts:
    return _Parts({"type": kind, **({"text": _HOLDS} if kind == "text" else {})} for kind in kinds)


def _as_parts(text: str) -> _Parts:
    """A content as processors of transformers take it."""
    parts = _Parts()
    for i, words in enumerate(text.split(READ)):
        if i:
            parts.append({"type": "image"})
        if words:
            parts.append({"type": "text", "text": words})
    return parts


def _ended(text: str) -> str:
    """The text with an END behind its last letter, before the space that a template may trim."""
    *_, words = text.rpartition(READ)
    if not words and READ in text:  # in the last text, for which templates may look alone
        head = text.rstrip(READ)
        at = len(head.rstrip()) if head else len(text)
    else:
        at = len(text.rstrip())
    return text[:at] + END + text[at:]


def _rest(text: str) -> str:
    """What stands behind a message's END."""
    return _ended(text).partition(END)[2]


def _ahead(text: str) -> str:
    """The text with the images of a message where its template wants them."""
    first, *rest = text.split(_AHEAD)
    return first + "".join(READ * each.count(READ) + each.replace(READ, "") for each in rest)
