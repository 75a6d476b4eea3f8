"""What stands on a page, and what can be asked about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WrittenCell:
    """A piece of a line.

    at: where it begins in the width of the text, 0 to 1; 1 = it ends at the right edge. until: where it has ended,
    if that is not where the next one begins. centred: `at` is its middle. checked: behind a box with a cross, or
    behind one without.
    """

    text: str
    at: float = 0.0
    until: float | None = None
    centred: bool = False
    checked: bool | None = None

    @property
    def transcript(self) -> str:
        return self.text if self.checked is None else f"[{'x' if self.checked else ' '}] {self.text}"


@dataclass(frozen=True)
class WrittenLine:
    """scale: how large its letters are, against the page's smallest."""

    cells: tuple[WrittenCell, ...]
    scale: float = 1.0

    @property
    def text(self) -> str:
        return " ".join(cell.transcript for cell in self.cells)


@dataclass(frozen=True)
class Mark:
    """A polygon or, unless it is filled, a line.

    points: (x, y); x in the width of the text, 0 to 1; y in lines: 2.5 is the middle of the letters of line 2.
    """

    points: tuple[tuple[float, float], ...]
    filled: bool = False


@dataclass(frozen=True)
class Fact:
    """A question with its answer. where: (line, cell) of all that must be read for it. type: for scores."""

    type: str
    question: str
    answer: str
    where: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Content:
    """What a page says, whatever it looks like. table: its first row is the head."""

    title: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    paragraphs: tuple[str, ...] = ()

    @property
    def markdown(self) -> str:
        title = [f"# {self.title}"] if self.title else []
        fields = ["\n".join(f"- {key}: {value}" for key, value in self.fields)] if self.fields else []
        table = [_markdown(self.table)] if self.table else []
        return "\n\n".join([*title, *fields, *table, *self.paragraphs])

    @property
    def json(self) -> str:
        record: dict[str, Any] = {"title": self.title} if self.title else {}
        record |= dict(self.fields)
        if self.table:
            head, *rows = self.table
            record["rows"] = [dict(zip(head, row, strict=True)) for row in rows]
        if self.paragraphs:
            record["text"] = list(self.paragraphs)
        return json.dumps(record, ensure_ascii=False)


@dataclass(frozen=True)
class Page:
    """kind: receipt, table, bars ... aspect: height / width."""

    kind: str
    lines: tuple[WrittenLine, ...]
    facts: tuple[Fact, ...]
    aspect: float
    content: Content
    marks: tuple[Mark, ...] = field(default=())

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


def _markdown(table: tuple[tuple[str, ...], ...]) -> str:
    rows = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([rows[0], f"|{'---|' * len(table[0])}", *rows[1:]])
