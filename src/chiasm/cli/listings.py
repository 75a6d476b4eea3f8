"""Commands that say what there is: parts, recipes, the built-in world, this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from chiasm.cli.arguments import Plugins
from chiasm.terminal import completion


def doctor() -> None:
    """Say what this machine has, what is missing for what, and how to get it."""
    from chiasm.terminal.doctor import doctor as run

    run()


def parts(
    slot: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="only this slot", autocompletion=completion.slot_names),
    ] = None,
    plugins: Plugins = None,
) -> None:
    """List the parts of every slot with their options."""
    from chiasm.terminal.parts import table

    table(slot)


def recipes() -> None:
    """List the recipes that come with Chiasm."""
    from rich.table import Table

    from chiasm.recipe import about
    from chiasm.recipe import recipes as shipped
    from chiasm.terminal.console import console

    rows = Table("recipe", "about", box=None, header_style="bold")
    for name, path in shipped().items():
        rows.add_row(name, about(path))
    console().print(rows)


def world(
    show: Annotated[bool, typer.Option("--show", help="write a contact sheet")] = False,
    out: Annotated[Path, typer.Option(help="the contact sheet")] = Path("world.png"),
    scenes: Annotated[int, typer.Option(min=1, max=10_000, help="scenes on the sheet")] = 8,
    options: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            help="options of the world, such as emoji=64 language=zh", metavar="[OPTION=VALUE]..."
        ),
    ] = None,
) -> None:
    """Look at the built-in world, and measure how fast it streams."""
    from chiasm.terminal.world import world as run

    run(options or [], out if show else None, scenes)
