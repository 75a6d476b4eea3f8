"""How a chat template writes calls of tools, found by having it write one; and calls in what a model answers.

Most templates write a JSON object with a name and arguments, behind words or a token of their own:
`<tool_call>{"name": "price", "arguments": {"of": "cup"}}</tool_call>`. Those are read; others are not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chiasm.data.sample import ToolCall
from chiasm.errors import DataError

if TYPE_CHECKING:
    from chiasm.language.turns import Turns

NAME, ARGUMENTS = "probe_tool", {"word": "probe value"}
PROBE = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "probe",
        "parameters": {"type": "object", "properties": {"word": {"type": "string", "description": "probe"}}},
    },
}
ID = "probe0001"  # nine letters, as Mistral's templates want them
_CLOSING = re.compile(r"[\s,;\]]*(</?[\w|]+>)?[\s,;]*")  # behind a call, up to the next
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class CallForm:
    """A call is `opening`, and an object whose fields `name` and `arguments` say what is called.

    opening: as an answer's text has it, without special tokens; "" = an answer that begins with an object, or a
        list of them, calls.
    """

    opening: str
    name: str
    arguments: str

    def read(self, text: str, names: Collection[str]) -> tuple[str, list[ToolCall]]:
        """What an answer says, and its calls of tools of these names.

        What is not written as a call, or calls something else, is text.
        """
        at = text.find(self.opening) if self.opening else len(text) - len(text.lstrip())
        while at >= 0:
            calls = list(self._calls(text[at:], names))
            if calls:
                return text[:at].rstrip(), calls
            at = text.find(self.opening, at + 1) if self.opening else -1
        return text, []

    def certain(self, text: str) -> int:
        """How many letters of the beginning of an answer are no call, whatever comes behind them."""
        if not self.opening:
            begin = text.lstrip()
            return 0 if not begin or begin[0] in "{[" else len(text)
        at = text.find(self.opening)
        if at >= 0:
            return len(text[:at].rstrip())
        most = min(len(self.opening) - 1, len(text))
        begun = next((n for n in range(most, 0, -1) if text.endswith(self.opening[:n])), 0)
        return len(text[: len(text) - begun].rstrip())

    def _calls(self, text: str, names: Collection[str]) -> Iterator[ToolCall]:
        """The calls with which a text begins, as far as it consists of them; none if something else is there."""
        calls: list[ToolCall] = []
        while text:
            body = text.removeprefix(self.opening).lstrip().removeprefix("[").lstrip()
            try:
                value, end = _DECODER.raw_decode(body)
            except (ValueError, RecursionError):
                return
            call = self._call(value)
            if call is None or call.name not in names:
                return
            calls.append(call)
            closing = _CLOSING.match(body, end)
            text = body[closing.end() if closing else end :]
        yield from calls

    def _call(self, value: Any) -> ToolCall | None:
        if not isinstance(value, dict):
            return None
        name, arguments = value.get(self.name), value.get(self.arguments, {})
        if isinstance(arguments, str):
            arguments = _object(arguments)
        return ToolCall(name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


def find_form(turns: Turns, hidden: Sequence[str], lead: str) -> CallForm:
    """The form in which a chat template writes calls; raises DataError where it knows none, or writes another.

    hidden: special tokens, which the text of an answer leaves out. lead: with which the template begins answers.
    """
    from chiasm.language.turns import TemplateTurn

    question = TemplateTurn("user", "probe")
    called = TemplateTurn("assistant", "", calls=(ToolCall(NAME, ARGUMENTS, ID),))
    try:
        asks = turns.text([question], prompt=True)
        declares = turns.text([question], prompt=True, tools=[PROBE])
        calls = turns.text([question, called], prompt=False, tools=[PROBE])
    except DataError as error:
        raise DataError.of("tools", f"the model's chat template takes none: {error}") from None
    if asks == declares or NAME not in declares:
        raise DataError.of("tools", "the model's chat template knows none")
    if not calls.startswith(declares.rstrip(" ")):
        raise DataError.of(
            "tools", "the model's chat template writes calls elsewhere than it asks for an answer"
        )
    written = calls[len(declares.rstrip(" ")) :]
    for at in (match.start() for match in re.finditer("{", written)):
        try:
            value, _ = _DECODER.raw_decode(written, at)
        except ValueError:
            continue
        name = next((key for key, each in value.items() if each == NAME), None)
        arguments = next((key for key, each in value.items() if ARGUMENTS in (each, _object(each))), None)
        if name is not None and arguments is not None:
            return CallForm(_visible(written[:at], hidden, lead), name, arguments)
    raise DataError.of("tools", "the model's chat template writes calls in a form that is not read here")


def _object(text: Any) -> Any:
    """What a text holds as JSON; None = it is none."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _visible(opening: str, hidden: Sequence[str], lead: str) -> str:
    for token in hidden:
        opening = opening.replace(token, "")
    return opening.strip().removeprefix(lead).strip().removesuffix("[").rstrip()
