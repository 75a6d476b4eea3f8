"""`chiasm chat`: a conversation in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from rich.console import Console
from rich.text import Text

from chiasm.checkpoint import load_model
from chiasm.conversation import Reply, Turn, as_messages
from chiasm.errors import ChiasmError
from chiasm.model import Model
from chiasm.terminal.console import console as standard_console
from chiasm.terminal.console import fail
from chiasm.terminal.pictures import preview, save_picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
HELP = (
    "Paths of pictures in a message are shown to the model. "
    "Ctrl-C stops an answer, an empty message goes on with it. /new begins again, /quit or Ctrl-D leaves."
)


def converse(
    folder: Path,
    *,
    message: str | None,
    pictures: Sequence[Path],
    save: Path,
    seed: int,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Answer one message, or talk until the user leaves."""
    console = standard_console()
    model = load_model(folder, device, dtype)
    history: list[dict[str, Any]] = []
    shown: list[Any] = [{"image": path} for path in pictures]
    if message is not None:
        _Answer(console, model, history, [*shown, *items(message)], save, seed).run()
        return
    console.print(HELP, style="dim")
    stopped: _Answer | None = None
    while True:
        try:
            said = console.input(Text("you   ", "bold cyan")).strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if said in ("/quit", "/exit"):
            return
        if said == "/new":
            history.clear()
            stopped = None
        elif said or stopped:
            try:
                answer = stopped if stopped and not said else None
                answer = answer or _Answer(console, model, history, [*shown, *items(said)], save, seed)
                stopped = None if answer.run() else answer
                shown = []
            except ChiasmError as error:
                fail(error)


def items(message: str) -> list[Any]:
    """A message as text and pictures: words that are paths of pictures become pictures, in their places."""
    try:
        words = shlex.split(message)
    except ValueError:  # an apostrophe is no quotation
        words = message.split()
    if not any(Path(word).suffix.lower() in SUFFIXES for word in words):
        return [message]
    found: list[Any] = []
    text: list[str] = []
    for word in words:
        if Path(word).suffix.lower() in SUFFIXES:
            if text:
                found.append(" ".join(text))
                text = []
            found.append({"image": Path(word).expanduser()})
        else:
            text.append(word)
    return found + ([" ".join(text)] if text else [])


class _Answer:
    """One question and its answer; the history is extended when the answer is whole."""

    def __init__(
        self,
        console: Console,
        model: Model,
        history: list[dict[str, Any]],
        content: list[Any],
        save: Path,
        seed: int,
    ):
        self.console, self.history, self.save = console, history, save
        self.asked = {"role": "user", "content": content}
        self.turn = Turn(model, as_messages([*history, self.asked]), seed=seed)
        self.reply = Reply()

    def run(self) -> bool:
        """Show the answer, from where it was stopped; False: it was stopped (again)."""
        self.console.print("model ", style="bold green", end="")
        try:
            for piece in self.turn:
                self._show(piece)
        except KeyboardInterrupt:
            self.console.print(" (stopped; an empty message goes on)", style="dim")
            return False
        self.console.print()
        self.history += [self.asked, {"role": "assistant", "content": self.reply.content}]
        return True

    def _show(self, piece: str | Image) -> None:
        self.reply.add(piece)
        if isinstance(piece, str):
            self.console.print(piece, end="", soft_wrap=True)
        else:
            self.console.print()
            self.console.print(preview(piece))
            self.console.print(str(save_picture(piece, self.save)), style="dim", soft_wrap=True)
