"""What stands on a page, and what can be asked about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chiasm.data.world.dice import Dice


@dataclass(frozen=True)
class WrittenCell:
    """A piece of a line. at: where it begins in the width of the text, 0 to 1; 1 = it ends at the right edge."""

    text: str
    at: float = 0.0


@dataclass(frozen=True)
class WrittenLine:
    """scale: how large its letters are, against the page's smallest."""

    cells: tuple[WrittenCell, ...]
    scale: float = 1.0

    @property
    def text(self) -> str:
        return " ".join(cell.text for cell in self.cells)


@dataclass(frozen=True)
class Fact:
    """A question with its answer. where: (line, cell) of all that must be read for it. type: for scores."""

    type: str
    question: str
    answer: str
    where: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Page:
    """kind: receipt, table, label or letter. aspect: height / width. table: the cells of it, for Markdown."""

    kind: str
    lines: tuple[WrittenLine, ...]
    facts: tuple[Fact, ...]
    aspect: float
    table: tuple[tuple[str, ...], ...] = ()

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    @property
    def markdown(self) -> str:
        """The table as Markdown."""
        rows = [f"| {' | '.join(row)} |" for row in self.table]
        return "\n".join([rows[0], f"|{'---|' * len(self.table[0])}", *rows[1:]])


MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December")  # fmt: skip
COLUMNS = ("price", "stock", "weight", "age", "width", "sold")
PLACES = (
    "Oslo",
    "Lima",
    "Cairo",
    "Delhi",
    "Paris",
    "Quito",
    "Seoul",
    "Tunis",
    "Perth",
    "Vienna",
    "Dakar",
    "Riga",
)
DOINGS = (("lives in", "Where does the {name} live?"), ("was seen in", "Where was the {name} seen?"),
          ("came from", "Where did the {name} come from?"), ("goes to", "Where does the {name} go?"))  # fmt: skip


def receipt(names: Sequence[str], rows: int, dice: Dice) -> Page:
    items = dice.sample(names, rows)
    counts = [1 + dice.below(5) for _ in items]
    cents = [10 * (5 + dice.below(195)) for _ in items]
    date = f"{1 + dice.below(28)} {dice.pick(MONTHS)} {2020 + dice.below(10)}"
    total = _money(sum(cents))
    lines = [
        WrittenLine((WrittenCell(f"{dice.pick(PLACES)} market"),), 1.6),
        WrittenLine((WrittenCell(date),)),
    ]
    lines += [
        WrittenLine((WrittenCell(str(count)), WrittenCell(item, 0.12), WrittenCell(_money(each), 1.0)))
        for item, count, each in zip(items, counts, cents, strict=True)
    ]
    lines.append(WrittenLine((WrittenCell("Total"), WrittenCell(total, 1.0)), 1.3))
    facts = [Fact("date", "What is the date?", date, ((1, 0),))]
    facts.append(Fact("total", "What is the total?", total, ((len(lines) - 1, 0), (len(lines) - 1, 1))))
    for row, (item, count, each) in enumerate(zip(items, counts, cents, strict=True), 2):
        facts.append(Fact("price", f"How much is the {item}?", _money(each), ((row, 1), (row, 2))))
        facts.append(
            Fact("quantity", f"How many of the {item} were bought?", str(count), ((row, 0), (row, 1)))
        )
    return Page("receipt", tuple(lines), tuple(facts), 1.6)


def table(names: Sequence[str], rows: int, dice: Dice) -> Page:
    items, columns = dice.sample(names, rows), dice.sample(COLUMNS, 2 + dice.below(2))
    values = [
        dice.sample(range(10, 1000), len(items)) for _ in columns
    ]  # all different, so that one is the most
    starts = [0.0, *(0.4 + 0.6 * i / len(columns) for i in range(len(columns)))]
    grid = [
        ("name", *columns),
        *((item, *map(str, row)) for item, row in zip(items, zip(*values), strict=True)),
    ]
    lines = [
        WrittenLine(tuple(WrittenCell(text, at) for text, at in zip(row, starts, strict=True)))
        for row in grid
    ]
    facts = []
    for c, (column, each) in enumerate(zip(columns, values, strict=True), 1):
        for r, item in enumerate(items, 1):
            question = f"What is the {column} of the {item}?"
            facts.append(Fact("cell", question, str(each[r - 1]), ((0, c), (r, 0), (r, c))))
        question = f"What has the {column} {each[0]}?"
        facts.append(Fact("row", question, items[0], ((0, c), (1, 0), (1, c))))
        everything = tuple((r, k) for r in range(len(grid)) for k in (0, c))
        most = items[each.index(max(each))]
        facts.append(Fact("most", f"Which has the highest {column}?", most, everything))
    return Page("table", tuple(lines), tuple(facts), 0.75, tuple(grid))


def label(names: Sequence[str], rows: int, dice: Dice) -> Page:
    name = dice.pick(names)
    fields = [
        ("Net weight", f"{25 * (1 + dice.below(40))} g", "What is the net weight?"),
        ("Best before", f"{dice.pick(MONTHS)} {2027 + dice.below(6)}", "What is it best before?"),
        ("Batch", f"{'ABCDEFGHKLMNPRST'[dice.below(16)]}{1000 + dice.below(9000)}", "What is the batch?"),
        ("Price", _money(10 * (10 + dice.below(490))), "What is the price?"),
        ("Made in", dice.pick(PLACES), "Where was it made?"),
        ("Store at", f"{2 + dice.below(20)} degrees", "At how many degrees is it stored?"),
    ]
    chosen = dice.sample(fields, max(1, min(rows, len(fields))))
    lines = [
        WrittenLine((WrittenCell(name),), 3.5),
        *(WrittenLine((WrittenCell(key), WrittenCell(value, 1.0))) for key, value, _ in chosen),
    ]
    facts = [Fact("product", "What is the product?", name, ((0, 0),))]
    for row, (key, value, question) in enumerate(chosen, 1):
        answer = value.split()[0] if key == "Store at" else value
        facts.append(Fact("field", question, answer, ((row, 0), (row, 1))))
    return Page("label", tuple(lines), tuple(facts), 1.0)


def letter(names: Sequence[str], rows: int, dice: Dice) -> Page:
    items = dice.sample(names, rows)
    title = f"News from {dice.pick(PLACES)}"
    lines, facts = (
        [WrittenLine((WrittenCell(title),), 1.6)],
        [Fact("title", "What is the title?", title, ((0, 0),))],
    )
    for row, item in enumerate(items, 1):
        (doing, question), place = dice.pick(DOINGS), dice.pick(PLACES)
        lines.append(WrittenLine((WrittenCell(f"The {item} {doing} {place}."),)))
        facts.append(Fact("sentence", question.format(name=item), place, ((row, 0),)))
    return Page("letter", tuple(lines), tuple(facts), 1.3)


KINDS: dict[str, Callable[[Sequence[str], int, Dice], Page]] = {
    "receipt": receipt,
    "table": table,
    "label": label,
    "letter": letter,
}


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
