"""`chiasm chat`: a conversation in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from chiasm.checkpoint import load_model
from chiasm.conversation import as_messages, stream
from chiasm.errors import ChiasmError
from chiasm.model import Model
from chiasm.terminal.pictures import preview, save_picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
HELP = (
    "[dim]Paths of pictures in a message are shown to the model. "
    "/new begins again, /quit or Ctrl-D leaves.[/]"
)


def converse(folder: Path, *, message: str | None, pictures: Sequence[Path], save: Path, seed: int) -> None:
    """Answer one message, or talk until the user leaves."""
    console = Console(highlight=False)
    model = load_model(folder)
    history: list[dict[str, Any]] = []
    shown: list[Any] = [{"image": path} for path in pictures]
    if message is not None:
        _turn(console, model, history, [*shown, *items(message)], save, seed)
        return
    console.print(HELP)
    while True:
        try:
            said = console.input("[bold cyan]you[/]   ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if said in ("/quit", "/exit"):
            return
        if said == "/new":
            history.clear()
        elif said:
            try:
                _turn(console, model, history, [*shown, *items(said)], save, seed)
                shown = []
            except ChiasmError as error:
                console.print("[bold red]error[/]", str(error), markup=True)


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


def _turn(
    console: Console, model: Model, history: list[dict[str, Any]], content: list[Any], save: Path, seed: int
) -> None:
    """One question and its answer; the history is extended only when both went well."""
    asked = {"role": "user", "content": content}
    console.print("[bold green]model[/] ", end="")
    said: list[Any] = []
    for piece in stream(model, as_messages([*history, asked]), seed=seed):
        if isinstance(piece, str):
            console.print(piece, end="", markup=False)
        else:
            console.print()
            console.print(preview(piece))
            console.print(f"[dim]{save_picture(piece, save)}[/]")
        said.append(piece)
    console.print()
    history += [asked, {"role": "assistant", "content": said}]
