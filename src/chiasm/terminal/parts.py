"""`chiasm parts`: the parts of every slot, from their signatures."""

import inspect

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chiasm import parts


def table(slot: str | None) -> None:
    """Print the parts of one slot, or of all."""
    console = Console()
    for each in [slot] if slot else parts.SLOTS:
        console.print(f"\n[bold]{each}[/]")
        for name in parts.names(each):
            part = parts.lookup(each, name)
            console.print(f"  [cyan]{name}[/]  {escape(_first_line(part))}", highlight=False, soft_wrap=True)
            rows = Table(box=None, show_header=False, padding=(0, 1, 0, 3))
            for option in parts.options(part).values():
                default = "required" if option.required else f"= {option.default!r}"
                rows.add_row(option.name, escape(option.type), escape(default), escape(option.help))
            if rows.row_count:
                console.print(rows)


def _first_line(part: type[parts.Part]) -> str:
    return (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")
