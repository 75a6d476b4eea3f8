"""Written pages: answers, boxes and the resolution that a question needs."""

from itertools import islice, pairwise

import numpy as np
import pytest

from chiasm.data.pages.content import KINDS
from chiasm.data.pages.layout import LEGIBLE, PagePart, PagePicture, capital_height, lay_out
from chiasm.data.pages.source import Pages
from chiasm.data.sample import Picture
from chiasm.data.world.dice import Dice
from chiasm.errors import DataError
from chiasm.inference.zoom import find_box
from chiasm.views.focus import Focus

NAMES = [f"thing{i}" for i in range(20)]


def of(kind, **options):
    return Pages(pages=20, kinds={kind: 1}, **options)


def samples(source):
    return [sample for index in range(len(source)) for sample in source[index]]


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_stands_where_its_fact_says(kind):
    page = KINDS[kind](NAMES, 5, Dice(kind))
    for fact in page.facts:
        words = " ".join(page.lines[line].cells[cell].text for line, cell in fact.where)
        assert fact.answer in words, fact
    assert len({fact.question for fact in page.facts}) == len(page.facts)


def test_a_receipt_adds_up():
    page = KINDS["receipt"](NAMES, 6, Dice("receipt"))
    prices = [float(fact.answer) for fact in page.facts if fact.type == "price"]
    total = next(fact.answer for fact in page.facts if fact.type == "total")
    assert f"{sum(prices):.2f}" == total


def test_the_most_of_a_table_is_the_most():
    page = KINDS["table"](NAMES, 6, Dice("table"))
    head, *rows = page.table
    for fact in (fact for fact in page.facts if fact.type == "most"):
        column = next(i for i, name in enumerate(head) if fact.question.endswith(f"highest {name}?"))
        assert fact.answer == max(rows, key=lambda row: int(row[column]))[0]
    assert page.markdown.splitlines()[1] == "|" + "---|" * len(head)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 18])
def test_words_lie_on_the_page_and_apart(kind, rows):
    layout = lay_out(KINDS[kind](NAMES, rows, Dice(kind, rows)), 448)
    assert max(layout.size) == 448
    for line in layout.boxes:
        for left, top, right, bottom in line:
            assert 0 < left < right <= layout.size.width
            assert 0 < top < bottom <= layout.size.height
        assert all(a[2] < b[0] for a, b in pairwise(line))


def test_what_is_drawn_lies_in_its_box():
    picture = PagePicture(KINDS["label"](NAMES, 3, Dice("label")), 448)
    inked = np.asarray(picture.open()).min(axis=2) < 128
    covered = np.zeros_like(inked)
    for line in picture.layout.boxes:
        for left, top, right, bottom in line:
            covered[int(top) : int(bottom) + 2, int(left) - 1 : int(right) + 2] = True
            assert inked[int(top) : int(bottom), int(left) : int(right)].any()
    assert not (inked & ~covered).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_resolution_is_the_least_with_legible_capitals(kind):
    for sample in samples(of(kind, canvas=300)):
        page = of(kind).page(int(sample.name.split()[1]))
        fact = next(fact for fact in page.facts if fact.question == sample.truth["question"])
        scale = min(page.lines[line].scale for line, _ in fact.where)

        def capitals(canvas, page=page, scale=scale):
            return lay_out(page, canvas).letters * scale * capital_height()

        resolution = sample.truth["resolution"]
        assert capitals(resolution) >= LEGIBLE * 0.97  # sides are whole pixels
        assert capitals(resolution * 0.9) < LEGIBLE


def test_small_print_needs_more_pixels_than_the_name_of_a_product():
    needs = {}
    for sample in samples(of("label")):
        needs.setdefault(sample.truth["type"], []).append(sample.truth["resolution"])
    assert max(needs["product"]) < min(needs["field"])


def test_the_box_is_named_as_dualfocus_names_it_and_the_part_is_what_it_cuts_out():
    source = Pages(pages=10, tasks={"zoom": 2})
    for sample in samples(source):
        ask, box, again, answer = sample.messages
        named = find_box(box.content[0])
        assert named == pytest.approx(sample.truth["box"], abs=0.006)
        whole, part = ask.content[0], again.content[0]
        assert isinstance(part, PagePart)
        assert part.box == Focus.of(whole.size, named).crop
        assert answer.content == (sample.truth["answer"],)
        assert part.open().size == (part.size.width, part.size.height)


def test_tasks_give_as_many_documents_as_asked_and_tables_alone_have_markdown():
    source = Pages(pages=12, kinds={"table": 1, "letter": 1}, tasks={"question": 2, "read": 1, "markdown": 1})
    for index in range(12):
        tasks = [sample.truth["task"] for sample in source[index]]
        table = ["markdown"] if source.page(index).kind == "table" else []
        assert tasks == ["question", "question", "read", *table]


def test_names_that_are_held_out_never_stand_on_a_page_of_training():
    train, held_out = Pages(), Pages(split="names")
    assert not set(train.names) & set(held_out.names)
    assert len(held_out.names) == 16
    words = set(" ".join(train.page(i).text for i in range(40)).split())
    assert not words & set(held_out.names)


def test_pages_are_functions_of_seed_and_index():
    texts = [Pages(seed=seed).page(3).text for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    keys = [next(iter(p.key for p in pictures(Pages(canvas=c)[0]))) for c in (64, 64, 96)]
    assert keys[0] == keys[1] != keys[2]
    assert Pages().fingerprint != Pages(seed=1).fingerprint


def pictures(group):
    return (item for sample in group for item in sample.messages[0].content if isinstance(item, Picture))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rows": (3, 25)}, "rows"),
        ({"rows": (4, 2)}, "rows"),
        ({"kinds": {"recipt": 1}}, "did you mean 'receipt'"),
        ({"tasks": {"question": 0}}, "nothing to write"),
        ({"tasks": {"read": -1}}, "from 0 to"),
    ],
)
def test_options_that_cannot_be_are_named(options, problem):
    with pytest.raises(DataError, match=problem):
        Pages(**options)


def test_a_page_that_is_not_there_is_an_error():
    with pytest.raises(IndexError, match="page 8000"):
        Pages()[8000]
    assert len(list(islice(samples(Pages(pages=2)), 8))) == 8
