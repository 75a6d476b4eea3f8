"""Pieces of an answer with the calls of tools in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chiasm.data.sample import Sample, ToolCall
from chiasm.data.tool_calls import names_of
from chiasm.language.calling import CallForm

if TYPE_CHECKING:
    from chiasm.language.text import TextTokenizer


class CalledTools:
    """Gives text on as far as it is certainly no call, and holds back what may be one until the answer has ended.

    names: of the tools that there are. first: how many calls the conversation has already.
    calls: that the answer has made, once it has ended.
    """

    def __init__(self, form: CallForm, names: Sequence[str], first: int = 0):
        self.form, self.names, self.first = form, names, first
        self.calls: tuple[ToolCall, ...] = ()
        self._text, self._given = "", 0

    @classmethod
    def of(cls, tokenizer: TextTokenizer, sample: Sample) -> CalledTools | None:
        """For the answer to a conversation; None = there is no tool in it. Raises DataError."""
        if not sample.tools:
            return None
        first = sum(len(message.calls) for message in sample.messages)
        return cls(tokenizer.call_form, names_of(sample.tools), first)

    def feed(self, piece: Any) -> list[Any]:
        """What can be given on of the next piece: text or an image, behind which a new text begins."""
        if isinstance(piece, str):
            self._text += piece
            return self._give(self.form.certain(self._text))
        rest = self._give(len(self._text))
        self._text, self._given = "", 0
        return [*rest, piece]

    def finish(self) -> list[str]:
        """The rest of the text, once the answer has ended."""
        text, calls = self.form.read(self._text, self.names)
        # Nine letters, as Mistral's templates want them, and no other call of the conversation has the same.
        self.calls = tuple(replace(call, id=f"call{i:05}") for i, call in enumerate(calls, self.first))
        return self._give(len(text))

    def _give(self, end: int) -> list[str]:
        text, self._given = self._text[self._given : end], max(end, self._given)
        return [text] if text else []
