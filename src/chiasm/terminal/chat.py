"""`chiasm chat`: a conversation in the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from rich.console import Console
from rich.text import Text

from chiasm.conversation import Reply, Turn
from chiasm.conversation import zoom as look_twice
from chiasm.data import Message, Picture
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import ToolCall
from chiasm.data.tool_calls import declared
from chiasm.errors import ChiasmError
from chiasm.inference.answers import is_cut
from chiasm.inference.options import sampling_of
from chiasm.model import Model
from chiasm.model.checkpoint import load_model
from chiasm.recipe.schema import OF_IMAGES
from chiasm.storage import safe_json
from chiasm.storage.folders import check_folder
from chiasm.terminal.console import console as standard_console
from chiasm.terminal.console import fail
from chiasm.terminal.pictures import preview, save_picture
from chiasm.terminal.questions import items as items  # scripts know it from here
from chiasm.terminal.questions import question
from chiasm.terminal.signals import signal_items

HELP = (
    "Images whose paths stand in a message are read by the model. "
    "Ctrl-C stops an answer, an empty message goes on with it. /new begins again, /quit or Ctrl-D leaves."
)


def converse(
    folder: Path,
    *,
    message: str | None,
    images: Sequence[Path],
    signals: Sequence[str] = (),
    save: Path,
    seed: int,
    device: str | None = None,
    dtype: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    zoom: bool = False,
    tools: Path | None = None,
) -> None:
    """Answer one message, or talk until the user leaves.

    sampling: options of `Turn` for words and images. zoom: look twice where there is an image, and say where.
    tools: a JSON file of those that may be called; what a call gives is asked of the user.
    signals: as MODALITY=FILE, which stand before the first message, as images do.
    """
    if zoom and tools is not None:
        raise ChiasmError("tools: with zoom, answers are words alone: leave one out")
    if zoom and (drawing := [name for name in OF_IMAGES if (sampling or {}).get(name) is not None]):
        raise ChiasmError(
            f"{drawing[0]} is of images that are drawn; with zoom, answers are words: leave one out"
        )
    check_folder(save)
    console = standard_console()
    model = load_model(folder, device, dtype)
    history: list[Message] = []
    attached, options = list(images), {"seed": seed, **(sampling or {})}
    attached_signals = signal_items(signals)
    if tools is not None:
        options["tools"] = declared(_json(tools))
    if message is not None:
        _Answer(
            console, model, history, question(message, attached, attached_signals), save, options, zoom
        ).run()
        return
    if sampling:  # what is wrong with it is said before the first message
        sampling_of(model, **sampling)
    console.print(HELP, style="dim")
    stopped: _Answer | None = None
    while True:
        try:
            _answer_calls(console, history)
            goes_on = stopped is None and _waits(history)
            text = "" if goes_on else console.input(Text("you   ", "bold cyan")).strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if text in ("/quit", "/exit"):
            return
        if text == "/new":
            history.clear()
            stopped = None
        elif text or stopped or goes_on:
            try:
                answer = stopped if stopped and not text else None
                asked = question(text, attached, attached_signals) if text else []
                answer = answer or _Answer(console, model, history, asked, save, options, zoom)
                stopped = None if answer.run() else answer
                attached, attached_signals = [], []
            except ChiasmError as error:
                fail(error)


def _answer_calls(console: Console, history: list[Message]) -> None:
    """Ask the user what the tools give that the last answer has called."""
    for call in history[-1].calls if history else ():
        result = ""
        while not result:
            result = console.input(Text(f"{call.name} ", "bold magenta")).strip()
        history.append(Message("tool", (result,), call=call))


def _waits(history: Sequence[Message]) -> bool:
    """Whether the model is to go on by itself, behind what a tool has given."""
    return bool(history) and history[-1].role == "tool"


def _json(path: Path) -> Any:
    try:
        return safe_json.parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ChiasmError(f"tools: {path} cannot be read: {error}") from None


class _Answer:
    """One question and its answer; the history is extended when the answer is whole.

    question: [] = there is none, and the answer follows what a tool has given.
    """

    _named = False  # whether who speaks stands before what is shown of it

    def __init__(
        self,
        console: Console,
        model: Model,
        history: list[Message],
        question: list[Message],
        save: Path,
        options: Mapping[str, Any],
        zoom: bool = False,
    ):
        self.console, self.history, self.save, self.question = console, history, save, question
        self._named = False
        messages = [*history, *self.question]
        looks = zoom and _shows_image(messages)
        if zoom and not looks:
            console.print("(no image to zoom into)", style="dim")
        self.turn: Turn | _Looks = (
            _Looks(console, model, messages, options) if looks else Turn(model, messages, **options)
        )
        self.reply = Reply()

    def run(self) -> bool:
        """Show the answer, from where it was stopped; False: it was stopped (again)."""
        self._named = False
        try:
            for piece in self.turn:
                self._show(piece)
        except KeyboardInterrupt:
            self.console.print(" (stopped; an empty message goes on)", style="dim")
            return False
        self._name()
        if self.turn.cut:
            self.console.print(
                " (cut off: that was the limit of tokens, or the context)", style="dim", end=""
            )
        self.console.print()
        answer = (item if isinstance(item, str) else PictureInMemory(item) for item in self.reply.content)
        for call in self.turn.calls:
            self.console.print(
                f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)})", style="magenta"
            )
        self.history += [*self.question, Message("assistant", tuple(answer), calls=self.turn.calls)]
        return True

    def _name(self) -> None:
        """Print who speaks, once an answer has begun."""
        if not self._named:
            self.console.print("model ", style="bold green", end="")
        self._named = True

    def _show(self, piece: str | Image) -> None:
        self._name()
        self.reply.add(piece)
        if isinstance(piece, str):
            self.console.print(piece, end="", soft_wrap=True)
        else:
            self.console.print()
            if self.console.is_terminal:
                self.console.print(preview(piece))
            self.console.print(str(save_picture(piece, self.save)), style="dim", soft_wrap=True)


class _Looks(Iterator[str]):
    """An answer in two looks, which comes whole and calls no tools; stopped, it begins anew."""

    calls: tuple[ToolCall, ...] = ()

    def __init__(
        self, console: Console, model: Model, messages: Sequence[Message], options: Mapping[str, Any]
    ):
        self.console, self.model, self.messages = console, model, messages
        self.options = {name: value for name, value in options.items() if name not in OF_IMAGES}
        self.ended = self.cut = False

    def __next__(self) -> str:
        if self.ended:
            raise StopIteration
        answer = look_twice(self.model, self.messages, **self.options)
        self.ended = True
        where = answer.problem or (
            f"looked at {list(answer.focus.crop) if answer.focus else None}; "
            f"{'that answer' if answer.zoomed else 'the answer without it'} stays"
        )
        self.console.print(f"({where})", style="dim", soft_wrap=True)
        self.cut = is_cut(answer.text)
        return answer.text


def _shows_image(messages: Sequence[Message]) -> bool:
    return any(isinstance(item, Picture) for m in messages if m.role == "user" for item in m.content)
