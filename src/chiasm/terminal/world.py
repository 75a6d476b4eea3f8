"""`chiasm world`: a look at the built-in world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from rich.console import Console

from chiasm import parts
from chiasm.data.world.sheet import contact_sheet
from chiasm.errors import RecipeError
from chiasm.recipe import load_value

MEASURED = 300  # scenes


def world(options: Sequence[str], sheet: Path | None, scenes: int) -> None:
    """Print what a scene gives and how fast scenes stream; write a contact sheet."""
    spec = {"type": "world", **dict(_option(each) for each in options)}
    source = parts.build("data", spec, where="world")
    console = Console(highlight=False)
    for sample in source[0]:
        words = [
            " ".join(i if isinstance(i, str) else "[picture]" for i in m.content) for m in sample.messages
        ]
        console.print(f"[dim]{sample.truth['task']:>9}[/]  ", end="")
        console.print(" → ".join(words), markup=False)
    groups = min(len(source), MEASURED)
    start = perf_counter()
    documents = sum(len(source[index]) for index in range(groups))
    seconds = perf_counter() - start
    console.print(
        f"\n{len(source):,} scenes; streams {groups / seconds:,.0f} scenes/s "
        f"({documents / seconds:,.0f} documents/s) before a picture is drawn"
    )
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(source, scenes).save(sheet)
        console.print(f"contact sheet: {sheet}")


def _option(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"{text!r} is not of the form option=value")
    return key, load_value(value, text)
