"""Charts: bars that lie beside their values or stand on an axis, and a line through the months."""

from __future__ import annotations

from collections.abc import Sequence

from chiasm.data.pages.content import Content, Fact, Mark, Page, WrittenCell, WrittenLine
from chiasm.data.pages.words import COLUMNS, MONTHS, PageWords, Pair
from chiasm.data.world.dice import Dice

MOST_STANDING = 5  # bars that have room for their names beneath
TICKS = 6  # of an axis, 0 among them
STEPS = (1, 2, 5, 10, 20, 50)
AXIS = 0.14  # of the width: left of it stand the values
LYING = (0.4, 0.84)  # of the width: where lying bars begin, and the longest ends
TITLE = 1  # lines above the axis


def bars(names: Sequence[Pair], rows: int, dice: Dice, words: PageWords) -> Page:
    """A bar for each name: lying, with its value printed, or standing, so that the axis tells its value."""
    items = [words.either(name) for name in dice.sample(names, max(2, rows))]
    column = dice.pick(COLUMNS)
    standing = dice.coin() and len(items) <= MOST_STANDING
    if not standing:
        return _lying(items, column, dice, words)
    levels, step = dice.sample(range(1, TICKS), len(items)), dice.pick(STEPS)
    width = (1 - AXIS) / len(items)
    centres = [AXIS + width * (i + 0.5) for i in range(len(items))]
    marks = [
        Mark(_rectangle(at - width * 0.3, at + width * 0.3, _height(level), _height(0)), filled=True)
        for at, level in zip(centres, levels, strict=True)
    ]
    page = _Axis(items, centres, levels, step)
    facts = page.facts(("cell?", "most?", "least?"), "name", words.word(column), words)
    return page.page("bars", words.term(column), (words.term("name"), words.term(column)), facts, marks)


def trend(names: Sequence[Pair], rows: int, dice: Dice, words: PageWords) -> Page:
    """A line through months, whose values the axis tells."""
    name, column = words.either(dice.pick(names)), dice.pick(COLUMNS)
    count, side, step = min(max(2, rows), 12), words.side(), dice.pick(STEPS)
    first = dice.below(13 - count)
    months = [(MONTHS[m][:3], f"{m + 1}月")[side] for m in range(first, first + count)]
    levels = [dice.below(TICKS) for _ in months]
    width = (1 - AXIS) / count
    centres = [AXIS + width * (i + 0.5) for i in range(count)]
    points = tuple((at, _height(level)) for at, level in zip(centres, levels, strict=True))
    page = _Axis(months, centres, levels, step)
    facts = page.facts(("month?", "most month?", "least month?"), "month", words.word(column), words)
    dots = [Mark(_rectangle(x - 0.008, x + 0.008, y - 0.12, y + 0.12), filled=True) for x, y in points]
    title = f"{name}: {words.term(column)}"
    head = (words.term("month"), words.term(column))
    return page.page("trend", title, head, facts, [Mark(points), *dots])


def _lying(items: list[str], column: str, dice: Dice, words: PageWords) -> Page:
    values = dice.sample(range(10, 1000), len(items))
    left, right = LYING
    title, named = words.term(column), words.word(column)
    lines, marks = [WrittenLine((WrittenCell(title),), 1.6)], []
    facts = []
    for row, (item, value) in enumerate(zip(items, values, strict=True), TITLE):
        end = left + (right - left) * value / max(values)
        lines.append(WrittenLine((WrittenCell(item, until=left), WrittenCell(str(value), 1.0))))
        marks.append(Mark(_rectangle(left, end, row + 0.1, row + 0.95), filled=True))
        question = words.ask("cell?", column=named, name=item)
        facts.append(Fact("cell", question, str(value), ((row, 0), (row, 1))))
    everything = tuple((row, cell) for row in range(TITLE, len(lines)) for cell in (0, 1))
    for kind, value in (("most", max(values)), ("least", min(values))):
        answer = items[values.index(value)]
        facts.append(Fact(kind, words.ask(f"{kind}?", column=named), answer, everything))
    table = ((words.term("name"), title), *((i, str(v)) for i, v in zip(items, values, strict=True)))
    return Page("bars", tuple(lines), tuple(facts), 0.75, Content(title, table=table), tuple(marks))


class _Axis:
    """Values that stand beside an axis. levels: of each, in ticks. step: from tick to tick."""

    def __init__(self, labels: Sequence[str], centres: Sequence[float], levels: Sequence[int], step: int):
        self.labels, self.centres, self.levels = labels, centres, levels
        self.values = [str(level * step) for level in levels]
        self.ticks = [str(level * step) for level in range(TICKS)]

    def facts(self, questions: tuple[str, str, str], slot: str, column: str, words: PageWords) -> list[Fact]:
        """What is the value of each, and which is the most and the least, where there is one."""
        value, most, least = questions
        below = TITLE + TICKS  # the line with what stands below the axis
        facts = [
            Fact(
                "value",
                words.ask(value, column=column, **{slot: label}),
                self.values[i],
                ((below - 1 - self.levels[i], 0), (below, i)),
            )
            for i, label in enumerate(self.labels)
        ]
        everything = (*((TITLE + i, 0) for i in range(TICKS)), *((below, i) for i in range(len(self.labels))))
        for kind, question, level in (
            ("most", most, max(self.levels)),
            ("least", least, min(self.levels)),
        ):
            if self.levels.count(level) == 1:
                answer = self.labels[self.levels.index(level)]
                facts.append(Fact(kind, words.ask(question, column=column), answer, everything))
        return facts

    def page(
        self, kind: str, title: str, head: tuple[str, str], facts: list[Fact], marks: list[Mark]
    ) -> Page:
        lines = [WrittenLine((WrittenCell(title),), 1.6)]
        lines += [WrittenLine((WrittenCell(tick, until=AXIS),)) for tick in reversed(self.ticks)]
        lines.append(
            WrittenLine(
                tuple(
                    WrittenCell(label, at, centred=True)
                    for label, at in zip(self.labels, self.centres, strict=True)
                )
            )
        )
        rules = [Mark(((AXIS, _height(level)), (1.0, _height(level)))) for level in range(TICKS)]
        table = (head, *zip(self.labels, self.values, strict=True))
        return Page(kind, tuple(lines), tuple(facts), 0.75, Content(title, table=table), (*rules, *marks))


def _height(level: int) -> float:
    """Where a tick's line stands, in lines: the middle of its letters."""
    return TITLE + TICKS - 1 - level + 0.5


def _rectangle(left: float, right: float, top: float, bottom: float) -> tuple[tuple[float, float], ...]:
    return ((left, top), (right, top), (right, bottom), (left, bottom))
