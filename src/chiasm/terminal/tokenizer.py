"""`chiasm tokenizer report`: the table of image tokenizers in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from chiasm.evaluation.tokenizer_report import COLUMNS, caption, row, write
from chiasm.evaluation.tokenizers import by_data, measure_all

WIDTH = 180  # of a table that goes into a file


def report(runs: Sequence[str], out: Path, *, count: int, data: str | None) -> None:
    """Measure, print a table for each set of held-out pictures, and write the files."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH
    found = measure_all(runs, count=count, data=data, say=console.print)
    for group in by_data(found).values():
        table = Table(box=None, header_style="bold", title=caption(group), title_justify="left")
        for heading in COLUMNS:
            table.add_column(heading, justify="left" if heading == "tokenizer" else "right", no_wrap=True)
        for each in group:
            table.add_row(*row(each))
        console.print()
        console.print(table)
    write(found, out)
    console.print(f"\nreport: [bold]{(out / 'report.md').resolve()}[/]")
