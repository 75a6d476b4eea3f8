"""Written pages: answers, boxes and the resolution that a question needs."""

import json
from itertools import islice, pairwise

import numpy as np
import pytest

from chiasm.data.fonts import Typeface, chinese_font
from chiasm.data.pages.kinds import KINDS
from chiasm.data.pages.layout import LEGIBLE, LEGIBLE_CHINESE, PILLOW, PagePart, PagePicture, lay_out
from chiasm.data.pages.source import Pages
from chiasm.data.pages.words import PageWords
from chiasm.data.sample import Picture
from chiasm.data.world.dice import Dice
from chiasm.errors import DataError
from chiasm.inference.zoom import find_box
from chiasm.views.focus import Focus

NAMES = [(f"thing{i}", f"东西{i}") for i in range(20)]
CHINESE = chinese_font()
chinese = pytest.mark.skipif(
    CHINESE is None, reason="no font with Chinese letters: pip install 'chiasm[chinese]'"
)


def of(kind, **options):
    return Pages(pages=20, kinds={kind: 1}, **options)


def written(kind, rows, language="en", seed=0):
    dice = Dice(kind, rows, seed)
    return KINDS[kind](NAMES, rows, dice, PageWords(language, dice))


def samples(source):
    return [sample for index in range(len(source)) for sample in source[index]]


@pytest.mark.parametrize("language", ["en", "zh", "mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_stands_where_its_fact_says(kind, language):
    for seed in range(8):
        page = written(kind, 5, language, seed)
        for fact in page.facts:
            words = " ".join(page.lines[line].cells[cell].text for line, cell in fact.where)
            assert fact.answer in words, fact
        assert len({fact.question for fact in page.facts}) == len(page.facts)


def test_a_receipt_adds_up():
    page = written("receipt", 6)
    prices = [float(fact.answer) for fact in page.facts if fact.type == "price"]
    total = next(fact.answer for fact in page.facts if fact.type == "total")
    assert f"{sum(prices):.2f}" == total


def test_the_most_of_a_table_is_the_most():
    page = written("table", 6)
    head, *rows = page.content.table
    for fact in (fact for fact in page.facts if fact.type == "most"):
        column = next(i for i, name in enumerate(head) if fact.question.endswith(f"highest {name}?"))
        assert fact.answer == max(rows, key=lambda row: int(row[column]))[0]
    assert page.content.markdown.splitlines()[1] == "|" + "---|" * len(head)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 4, 18])
def test_words_lie_on_the_page_and_apart(kind, rows):
    for seed in range(4):
        layout = lay_out(written(kind, rows, seed=seed), 448)
        assert max(layout.size) == 448
        for line in layout.boxes:
            for left, top, right, bottom in line:
                assert 0 < left < right <= layout.size.width
                assert 0 < top < bottom <= layout.size.height
            assert all(a[2] < b[0] for a, b in pairwise(line))


def test_what_is_drawn_lies_in_its_box():
    picture = PagePicture(written("label", 3), 448)
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
            return lay_out(page, canvas).letters * scale * PILLOW.capital

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


def chart(kind, wanted, seeds=range(40)):
    """The first chart of a kind that is as wanted, where its bars or its trace are, and its layout."""
    page = next(page for seed in seeds if wanted(page := written(kind, 4, seed=seed)))
    picture = PagePicture(page, 896)
    pixels = np.asarray(picture.open()).astype(int)
    return page, pixels[..., 2] - pixels[..., 0] > 90, picture.layout


def is_standing(page):
    return len(page.lines) > 6


@pytest.mark.parametrize("kind", ["bars", "trend"])
def test_a_chart_on_an_axis_is_read_at_its_ticks(kind):
    page, blue, layout = chart(kind, is_standing)
    *ticks, below = range(1, len(page.lines))
    heights = {page.lines[i].text: sum(layout.boxes[i][0][1::2]) / 2 for i in ticks}
    for label, value in page.content.table[1:]:
        at = next(
            box for box, cell in zip(layout.boxes[below], page.lines[below].cells) if cell.text == label
        )
        column = blue[:, round((at[0] + at[2]) / 2)].nonzero()[0]
        top = column[0] if kind == "bars" else column.mean()
        assert min(heights, key=lambda tick: abs(heights[tick] - top)) == value
        assert abs(heights[value] - top) < 4


def test_lying_bars_are_as_long_as_their_values():
    page, blue, layout = chart("bars", lambda page: not is_standing(page))
    lengths, values = [], []
    for line, (_, value) in enumerate(page.content.table[1:], 1):
        _, top, _, bottom = layout.boxes[line][0]
        lengths.append(blue[round((top + bottom) / 2)].sum())
        values.append(int(value))
    assert np.allclose(np.divide(lengths, max(lengths)), np.divide(values, max(values)), atol=0.01)


def test_a_form_has_one_cross_in_each_choice_and_says_so():
    for seed in range(6):
        page = written("form", 8, seed=seed)
        for line in page.lines:
            checked = [cell for cell in line.cells if cell.checked is not None]
            assert sum(cell.checked for cell in checked) == bool(checked)
            for cell in checked:
                assert f"[{'x' if cell.checked else ' '}] {cell.text}" in page.text


def test_tasks_give_as_many_documents_as_asked():
    source = Pages(pages=6, tasks={"question": 2, "read": 1, "markdown": 1, "json": 1})
    for index in range(6):
        tasks = [sample.truth["task"] for sample in source[index]]
        assert tasks == ["question", "question", "read", "markdown", "json"]


@pytest.mark.parametrize("kind", KINDS)
def test_json_says_all_that_the_page_says_and_markdown_does_too(kind):
    content = written(kind, 4).content
    record = json.loads(content.json)
    said = [content.title, *(part for field in content.fields for part in field), *content.paragraphs]
    said += [cell for row in content.table for cell in row]
    for text in filter(None, said):
        assert f'"{text}"' in content.json
        assert text in content.markdown
    assert record.get("rows", []) == [dict(zip(content.table[0], row)) for row in content.table[1:]]


def test_pages_together_are_asked_about_by_their_numbers():
    tasks = {"question": 3, "read": 1, "which_page": 2}
    source = Pages(pages=9, together=3, tasks=tasks)
    assert len(source) == 3
    for index in range(3):
        texts = [source.page(3 * index + i).text for i in range(3)]
        for sample in source[index]:
            *shown, question = sample.messages[0].content
            assert shown[::2] == ["Page 1:", "Page 2:", "Page 3:"]
            assert [picture.key for picture in shown[1::2]] == [
                source.picture(3 * index + i).key for i in range(3)
            ]
            page = sample.truth["page"]
            if sample.truth["task"] == "which_page":
                named = question.split('"')[1]
                assert (
                    [named in text for text in texts].index(True) + 1 == page == int(sample.truth["answer"])
                )
                assert sum(named in text for text in texts) == 1
            else:
                assert question.startswith(f"On page {page}: ")


@pytest.mark.parametrize("language", ["zh", "mixed"])
@chinese
def test_chinese_pages_are_written_in_letters_that_differ(language):
    source = Pages(pages=14, language=language, tasks={"question": 1})
    texts = "".join(source.page(i).text for i in range(14))
    han = {letter for letter in texts if "\u4e00" <= letter <= "\u9fff"}
    latin = {letter for letter in texts if letter.isascii() and letter.isalpha()}
    assert len(han) > 50
    assert (len(latin) > 20) == (language == "mixed")
    glyphs = {bytes(source.typeface.at(40).getmask(letter)) for letter in han}
    assert len(glyphs) == len(han)
    assert "把这一页" in Pages(pages=1, language="zh", tasks={"json": 1})[0][0].messages[0].content[-1]


@chinese
def test_chinese_letters_need_more_pixels_than_latin_ones():
    source = Pages(pages=30, kinds={"letter": 1}, language="zh", tasks={"question": 1})
    for sample in samples(source):
        page = source.page(int(sample.name.split()[1]))
        fact = next(fact for fact in page.facts if fact.question == sample.truth["question"])
        scale = min(page.lines[line].scale for line, _ in fact.where)
        letters = lay_out(page, sample.truth["resolution"], source.typeface).letters
        assert letters * scale >= LEGIBLE_CHINESE * 0.97


def test_letters_that_the_font_lacks_are_named_with_what_to_install(monkeypatch):
    assert PILLOW.missing("Total: 3.50") == ""
    assert PILLOW.missing("合计 Total 合") == "".join(sorted("合计"))
    with pytest.raises(DataError, match=r"合.*fonts-noto-cjk"):
        PILLOW.require("合", "language: zh")
    monkeypatch.setattr("chiasm.data.pages.source.chinese_font", lambda: None)
    with pytest.raises(DataError, match=r"fonts-wqy-microhei.*chiasm\[chinese\]"):
        Pages(language="mixed")


def test_a_file_that_is_no_font_is_named(tmp_path):
    (tmp_path / "font.ttf").write_bytes(b"no font")
    with pytest.raises(DataError, match=r"font\.ttf cannot be read"):
        Pages(font=str(tmp_path / "font.ttf"))
    with pytest.raises(DataError, match=r"none\.ttf cannot be read"):
        Typeface(str(tmp_path / "none.ttf"))


def test_names_that_are_held_out_never_stand_on_a_page_of_training():
    train, held_out = Pages(), Pages(split="names")
    assert not set(train.names) & set(held_out.names)
    assert len(held_out.names) == 16
    words = set(" ".join(train.page(i).text for i in range(40)).split())
    assert not words & {english for english, _ in held_out.names}


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
        ({"together": 2, "tasks": {"zoom": 1}}, "'zoom', which is about one page, but together is 2"),
        ({"tasks": {"which_page": 1}}, "about several pages"),
        ({"together": 9, "pages": 8}, "name more pages"),
    ],
)
def test_options_that_cannot_be_are_named(options, problem):
    with pytest.raises(DataError, match=problem):
        Pages(**options)


def test_a_page_that_is_not_there_is_an_error():
    with pytest.raises(IndexError, match="group 8000"):
        Pages()[8000]
    assert len(list(islice(samples(Pages(pages=2)), 8))) == 8
