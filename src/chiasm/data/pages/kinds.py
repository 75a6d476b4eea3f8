"""The kinds of pages without images: receipts, tables, labels, letters and forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chiasm.data.pages.charts import bars, trend
from chiasm.data.pages.content import Content, Fact, Mark, Page, WrittenCell, WrittenLine
from chiasm.data.pages.words import CHOICES, COLUMNS, FORMS, PLACES, SENTENCES, PageWords, Pair
from chiasm.data.world.dice import Dice


def receipt(names: Sequence[Pair], rows: int, dice: Dice, words: PageWords) -> Page:
    items = [words.either(name) for name in dice.sample(names, rows)]
    counts = [1 + dice.below(5) for _ in items]
    cents = [10 * (5 + dice.below(195)) for _ in items]
    date = words.date(1 + dice.below(28), dice.below(12), 2020 + dice.below(10))
    total = _money(sum(cents))
    market = words.say("market", place=words.either(dice.pick(PLACES)))
    lines = [WrittenLine((WrittenCell(market),), 1.6), WrittenLine((WrittenCell(date),))]
    lines += [
        WrittenLine((WrittenCell(str(count)), WrittenCell(item, 0.12), WrittenCell(_money(each), 1.0)))
        for item, count, each in zip(items, counts, cents, strict=True)
    ]
    lines.append(WrittenLine((WrittenCell(words.term("total")), WrittenCell(total, 1.0)), 1.3))
    facts = [Fact("date", words.ask("date?"), date, ((1, 0),))]
    facts.append(Fact("total", words.ask("total?"), total, ((len(lines) - 1, 0), (len(lines) - 1, 1))))
    for row, (item, count, each) in enumerate(zip(items, counts, cents, strict=True), 2):
        facts.append(Fact("price", words.ask("price?", name=item), _money(each), ((row, 1), (row, 2))))
        facts.append(Fact("quantity", words.ask("quantity?", name=item), str(count), ((row, 0), (row, 1))))
    bought = tuple(
        (str(count), item, _money(each)) for item, count, each in zip(items, counts, cents, strict=True)
    )
    head = (words.word("count"), words.word("item"), words.word("price"))
    fields = ((words.word("date"), date), (words.term("total"), total))
    return Page("receipt", tuple(lines), tuple(facts), 1.6, Content(market, fields, (head, *bought)))


def table(names: Sequence[Pair], rows: int, dice: Dice, words: PageWords) -> Page:
    items = [words.either(name) for name in dice.sample(names, rows)]
    columns = dice.sample(COLUMNS, 2 + dice.below(2))
    # All values of a column are different, so that one is the most.
    values = [dice.sample(range(10, 1000), len(items)) for _ in columns]
    starts = [0.0, *(0.4 + 0.6 * i / len(columns) for i in range(len(columns)))]
    grid = [
        (words.term("name"), *map(words.term, columns)),
        *((item, *map(str, row)) for item, row in zip(items, zip(*values), strict=True)),
    ]
    lines = [
        WrittenLine(tuple(WrittenCell(text, at) for text, at in zip(row, starts, strict=True)))
        for row in grid
    ]
    facts = []
    for c, (key, each) in enumerate(zip(columns, values, strict=True), 1):
        column = words.word(key)
        for r, item in enumerate(items, 1):
            question = words.ask("cell?", column=column, name=item)
            facts.append(Fact("cell", question, str(each[r - 1]), ((0, c), (r, 0), (r, c))))
        question = words.ask("row?", column=column, value=each[0])
        facts.append(Fact("row", question, items[0], ((0, c), (1, 0), (1, c))))
        everything = tuple((r, k) for r in range(len(grid)) for k in (0, c))
        most = items[each.index(max(each))]
        facts.append(Fact("most", words.ask("most?", column=column), most, everything))
    below_the_head = Mark(((0.0, 1.05), (1.0, 1.05)))
    return Page("table", tuple(lines), tuple(facts), 0.75, Content(table=tuple(grid)), (below_the_head,))


def label(names: Sequence[Pair], rows: int, dice: Dice, words: PageWords) -> Page:
    name = words.either(dice.pick(names))
    fields = [
        ("net weight", f"{25 * (1 + dice.below(40))} g"),
        ("best before", words.month_of(dice.below(12), 2027 + dice.below(6))),
        ("batch", _code(dice)),
        ("label price", _money(10 * (10 + dice.below(490)))),
        ("made in", words.either(dice.pick(PLACES))),
        ("store at", str(2 + dice.below(20))),
    ]
    chosen = dice.sample(fields, max(1, min(rows, len(fields))))
    lines, facts = [WrittenLine((WrittenCell(name),), 3.5)], [_title("product?", name, words)]
    said = []
    for row, (key, value) in enumerate(chosen, 1):
        printed = words.say("degrees", degrees=value) if key == "store at" else value
        lines.append(WrittenLine((WrittenCell(words.term(key)), WrittenCell(printed, 1.0))))
        facts.append(Fact("field", words.ask(f"{key}?"), value, ((row, 0), (row, 1))))
        said.append((words.term(key), printed))
    return Page("label", tuple(lines), tuple(facts), 1.0, Content(name, tuple(said)))


def letter(names: Sequence[Pair], rows: int, dice: Dice, words: PageWords) -> Page:
    items = dice.sample(names, rows)
    title = words.say("news", place=words.either(dice.pick(PLACES)))
    lines, facts = [WrittenLine((WrittenCell(title),), 1.6)], [_title("title?", title, words)]
    sentences = []
    for row, item in enumerate(items, 1):
        (saying, question), place, side = dice.pick(SENTENCES), dice.pick(PLACES), words.side()
        sentences.append(saying[side].format(name=item[side], place=place[side]))
        lines.append(WrittenLine((WrittenCell(sentences[-1]),)))
        facts.append(Fact("sentence", question[side].format(name=item[side]), place[side], ((row, 0),)))
    return Page("letter", tuple(lines), tuple(facts), 1.3, Content(title, paragraphs=tuple(sentences)))


def form(names: Sequence[Pair], rows: int, dice: Dice, words: PageWords) -> Page:
    """Fields on ruled lines, and choices of which one has a cross."""
    title = words.either(dice.pick(FORMS))
    written = {
        "animal": words.either(dice.pick(names)),
        "city": words.either(dice.pick(PLACES)),
        "date": words.date(1 + dice.below(28), dice.below(12), 2020 + dice.below(10)),
        "number": _code(dice),
        "years": str(18 + dice.below(70)),
        "telephone": f"{dice.below(900) + 100} {dice.below(9000) + 1000}",
    }
    lines, facts, said = [WrittenLine((WrittenCell(title),), 1.8)], [_title("title?", title, words)], []
    marks = []
    for row, key in enumerate(dice.sample([*written, *CHOICES], rows), 1):
        printed = words.term(key)
        if key in written:
            cells, value, type, place = [WrittenCell(written[key], 0.45)], written[key], "field", 1
            marks.append(Mark(((0.44, row + 1.1), (1.0, row + 1.1))))
        else:
            options, place = [words.either(option) for option in CHOICES[key]], dice.below(len(CHOICES[key]))
            value, type = options[place], "choice"
            step = 0.55 / len(options)
            cells = [
                WrittenCell(option, 0.45 + step * i, checked=i == place) for i, option in enumerate(options)
            ]
            place += 1
        lines.append(WrittenLine((WrittenCell(printed), *cells)))
        facts.append(
            Fact(type, words.ask(f"{type}?", field=words.word(key)), value, ((row, 0), (row, place)))
        )
        said.append((printed, value))
    return Page("form", tuple(lines), tuple(facts), 1.2, Content(title, tuple(said)), tuple(marks))


KINDS: dict[str, Callable[[Sequence[Pair], int, Dice, PageWords], Page]] = {
    "receipt": receipt,
    "table": table,
    "label": label,
    "letter": letter,
    "form": form,
    "bars": bars,
    "trend": trend,
}


def _title(question: str, title: str, words: PageWords) -> Fact:
    return Fact(question.rstrip("?"), words.ask(question), title, ((0, 0),))


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _code(dice: Dice) -> str:
    return f"{'ABCDEFGHKLMNPRST'[dice.below(16)]}{1000 + dice.below(9000)}"
