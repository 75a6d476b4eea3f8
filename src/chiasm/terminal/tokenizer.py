"""`chiasm tokenizer report`: the table of image tokenizers in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from chiasm.evaluation.tokenizer_report import COLUMNS, caption, row, write
from chiasm.evaluation.tokenizers import by_data, measure_all
from chiasm.terminal.console import console, say


def report(
    runs: Sequence[str],
    out: Path,
    *,
    count: int,
    data: str | None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Measure, print a table for each set of held-out images, and write the files."""
    measured = measure_all(runs, count=count, data=data, say=say, device=device, dtype=dtype)
    for group in by_data(measured).values():
        table = Table(box=None, header_style="bold", title=caption(group), title_justify="left")
        for heading in COLUMNS:
            table.add_column(heading, justify="left" if heading == "tokenizer" else "right", no_wrap=True)
        for each in group:
            table.add_row(*row(each))
        say("")
        console().print(table, soft_wrap=True)
    write(measured, out)
    say(f"\nreport: {(out / 'report.md').resolve()}")
