"""`chiasm world`: samples, speed and a contact sheet of the built-in world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from PIL import Image
from rich.text import Text

from chiasm import parts
from chiasm.data.world.sheet import contact_sheet
from chiasm.errors import ChiasmError, RecipeError
from chiasm.recipe import load_value
from chiasm.terminal.console import say

MEASURED = 300  # scenes


def world(options: Sequence[str], sheet: Path | None, scenes: int) -> None:
    """Print what a scene gives and how fast scenes stream; write a contact sheet."""
    if sheet is not None and sheet.suffix.lower() not in Image.registered_extensions():
        raise ChiasmError(f"{sheet} says no format of images; end it with .png, say")
    spec = {"type": "world", **dict(_option(each) for each in options)}
    source = parts.build("data", spec, where="world")
    for sample in source[0]:
        words = [
            " ".join(i if isinstance(i, str) else "[picture]" for i in m.content) for m in sample.messages
        ]
        say(Text.assemble((f"{sample.truth['task']:>9}", "dim"), f"  {' → '.join(words)}"))
    groups = min(len(source), MEASURED)
    start = perf_counter()
    documents = sum(len(source[index]) for index in range(groups))
    seconds = perf_counter() - start
    say(
        f"\n{len(source):,} scenes; streams {groups / seconds:,.0f} scenes/s "
        f"({documents / seconds:,.0f} documents/s) before any image is rendered"
    )
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(source, scenes).save(sheet)
        say(f"contact sheet: {sheet}")


def _option(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"{text!r} is not of the form option=value")
    return key, load_value(value, text)
