"""`chiasm parts`: the parts of every slot, from their signatures."""

import inspect

from rich.table import Table
from rich.text import Text

from chiasm import parts
from chiasm.terminal.console import console, say


def table(slot: str | None) -> None:
    """Print the parts of one slot, or of all."""
    out = console()
    for each in [slot] if slot else parts.SLOTS:
        names = parts.names(each)
        say(Text(f"\n{each}", "bold"))
        for name in names:
            part = parts.lookup(each, name)
            say(Text.assemble("  ", (name, "cyan"), f"  {_first_line(part)}"))
            rows = Table(box=None, show_header=False, padding=(0, 1, 0, 3))
            for option in parts.options(part).values():
                default = "required" if option.required else f"= {option.default!r}"
                rows.add_row(*map(Text, (option.name, option.type, default, option.help)))
            if rows.row_count:
                out.print(rows)


def _first_line(part: type[parts.Part]) -> str:
    return (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")
