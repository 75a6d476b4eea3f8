"""`chiasm data filter`: what stays of a file of documents, and a table of what was dropped and why."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.table import Table

from chiasm.data import counts
from chiasm.data.filtering.stream import FilterReport, Filters, filter_documents
from chiasm.terminal.console import console, say


def run(
    source: Path,
    destination: Path,
    filters: Filters,
    *,
    images: Path | None,
    outside: bool,
    others: tuple[str, ...],
    broken: Literal["error", "skip"],
) -> None:
    report = filter_documents(
        source, destination, filters, images=images, outside=outside, others=others, broken=broken
    )
    if report.skipped:
        say(counts(report.skipped))
    if report.dropped_documents or report.dropped_lines or report.dropped_images:
        console().print(_table(report))
    say(
        f"{report.retained:,} of {report.documents:,} documents stay, with {report.images:,} images: {destination}"
    )


def _table(report: FilterReport) -> Table:
    table = Table("dropped", "by", "how many", box=None, header_style="bold")
    for what in ("documents", "lines", "images"):
        dropped = getattr(report, f"dropped_{what}")
        for rule, count in sorted(dropped.items(), key=lambda each: -each[1]):
            table.add_row(what, rule, f"{count:,}")
    return table
