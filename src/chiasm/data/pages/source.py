"""The data source `pages`: written pages with questions, transcripts and boxes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import Field

from chiasm.data import Message, Sample, Source
from chiasm.data.fonts import ADVICE, Typeface, chinese_font
from chiasm.data.pages.content import Page
from chiasm.data.pages.documents import ALONE, AMONG, TASKS, Sheet, documents
from chiasm.data.pages.kinds import KINDS
from chiasm.data.pages.layout import PagePicture
from chiasm.data.pages.words import Language, PageWords, all_letters
from chiasm.data.world.composer import TINTS
from chiasm.data.world.curated import CURATED
from chiasm.data.world.dice import Dice
from chiasm.errors import DataError, nearest
from chiasm.parts.bounds import Seed
from chiasm.views.focus import MARGIN

VERSION = 2  # raised when the same options would give other samples
DEFAULT_KINDS = dict.fromkeys(KINDS, 1)
DEFAULT_TASKS = {"question": 4}
HELD_OUT = 8  # one name of so many
MOST_ROWS = 24
MOST = 1_000  # documents of a task and a page

Split = Literal["train", "names"]


class Pages(Source, name="pages"):
    """Receipts, tables, labels, letters, forms and charts with exact ground truth, in English and in Chinese.

    A group is a page, or several in one conversation; each of its samples is a document of its own. Every truth has
    `resolution`: the least number of pixels of the page's longer side with which all that must be read for the
    answer has capital letters of 7 pixels, and Chinese letters of 12; and `box`, where it stands, in fractions of
    the page's sides.

    Args:
        pages: number of pages.
        canvas: pixels of a page's longer side.
        rows: fewest and most rows, items, fields or sentences on a page; the more, the smaller their letters.
        kinds: how often a page is a receipt, a table, a label, a letter, a form, a chart of bars, a trend (a line
            through months), relative to each other.
        tasks: how many documents of each task a group gives: question; read (all text of the page); markdown and
            json (what it says); box (where the answer stands, as DualFocus asks for it); zoom (DualFocus's two
            rounds: the box, then the answer beside the enlarged part); which_page (on which of several pages a text
            stands).
        language: en, zh, or mixed: fixed words in both, and each other word in one of them.
        font: file of the font; default: Pillow's own, and for Chinese that of the extra `chinese` or the system.
        together: how many pages stand in one conversation, each behind its number.
        names: how many names of things pages are about.
        split: train, or `names`: pages about names that never stand on one in training, one of eight.
        tints: how many colours the paper may have, 0 (white) to 8.
        margin: pixels round the part that `zoom` enlarges.
        seed: other pages for another seed; the names that are held out stay the same.
    """

    def __init__(
        self,
        *,
        pages: Annotated[int, Field(ge=1, le=10**9)] = 8000,
        canvas: Annotated[int, Field(ge=16, le=4096)] = 448,
        rows: tuple[int, int] = (3, 8),
        kinds: dict[str, int] = DEFAULT_KINDS,
        tasks: dict[str, int] = DEFAULT_TASKS,
        language: Language = "en",
        font: str | None = None,
        together: Annotated[int, Field(ge=1, le=16)] = 1,
        names: Annotated[int, Field(ge=64, le=176)] = 128,
        split: Split = "train",
        tints: Annotated[int, Field(ge=0, le=8)] = 0,
        margin: Annotated[int, Field(ge=0, le=4096)] = MARGIN,
        seed: Seed = 0,
    ):
        self.options = {
            key: value for key, value in locals().items() if key not in ("self", "__class__", "font")
        }
        self.check_together(self.options)
        self.pages, self.canvas, self.rows, self.split = pages, canvas, rows, split
        self.kinds = [kind for kind, share in kinds.items() for _ in range(share)]
        self.tasks, self.tints, self.margin, self.seed = dict(tasks), tints, margin, seed
        self.language, self.together = language, together
        self.names = [
            (english, chinese)
            for i, (_, english, chinese) in enumerate(CURATED[:names])
            if (i % HELD_OUT == 0) == (split == "names")
        ]
        self.typeface = _typeface(language, font)
        printed = {"en": (0,), "zh": (1,), "mixed": (0, 1)}[language]
        letters = "".join(name[side] for name in self.names for side in printed)
        self.typeface.require(f"{all_letters(language)}{letters}0123456789.,:", f"language: {language}")

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        _check(*(options[name] for name in ("rows", "kinds", "tasks", "pages", "together")))

    def __len__(self) -> int:
        return self.pages // self.together

    def __getitem__(self, index: int) -> list[Sample]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are groups 0 to {len(self) - 1}; group {index} was asked for")
        first = index * self.together
        sheets = [self.sheet(each) for each in range(first, first + self.together)]
        where = f"page {index}" if self.together == 1 else f"pages {first} to {first + self.together - 1}"
        return [
            self._sample(f"{where} of pages({self.split}), {task} {number}", task, *document)
            for task, count in self.tasks.items()
            for number, document in enumerate(
                documents(task, count, sheets, self.margin, Dice(task, self.seed, self.split, index)), 1
            )
        ]

    def page(self, index: int) -> Page:
        """What stands on page `index`."""
        return self.sheet(index).page

    def picture(self, index: int) -> PagePicture:
        return self.sheet(index).picture

    def sheet(self, index: int) -> Sheet:
        """Page `index` as it is shown."""
        dice = Dice("page", self.seed, self.split, index)
        low, high = self.rows
        kind, rows = dice.pick(self.kinds), low + dice.below(high - low + 1)
        words = PageWords(self.language, dice)
        page = KINDS[kind](self.names, rows, dice, words)
        dice = Dice("paper", self.seed, self.split, index)
        tint = TINTS[dice.below(self.tints)] if self.tints else (255, 255, 255)
        return Sheet(PagePicture(page, self.canvas, tint, self.typeface), words)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        record = f"pages {VERSION} {sorted(self.options.items())} {self.typeface.key}"
        return blake2b(record.encode(), digest_size=16).hexdigest()

    def _sample(self, name: str, task: str, messages: tuple[Message, ...], truth: dict[str, Any]) -> Sample:
        answer = messages[-1].content[0]
        truth = {"task": task, "type": task, "split": self.split, **truth, "answer": answer}
        return Sample(name, messages, truth)


def _typeface(language: Language, font: str | None) -> Typeface:
    if font is not None or language == "en":
        return Typeface(font)
    if (file := chinese_font()) is None:
        raise DataError(
            f"pages: language {language} needs a font with Chinese letters, and none is here: {ADVICE}"
        )
    return Typeface(file)


def _check(
    rows: tuple[int, int], kinds: dict[str, int], tasks: dict[str, int], pages: int, together: int
) -> None:
    low, high = rows
    if not 1 <= low <= high <= MOST_ROWS:
        raise DataError(f"pages: rows is {list(rows)}; two rising numbers from 1 to {MOST_ROWS}")
    for option, amounts, names in (("kinds", kinds, tuple(KINDS)), ("tasks", tasks, TASKS)):
        for name, count in amounts.items():
            if name not in names:
                raise DataError(f"pages: {option} has {name!r}{nearest(name, names)}")
            if not 0 <= count <= MOST:
                raise DataError(f"pages: {option}.{name} is {count}; from 0 to {MOST}")
        if not sum(amounts.values()):
            raise DataError(f"pages: {option} is all 0; there is nothing to write")
    if together > pages:
        raise DataError(f"pages: together is {together}, of {pages} pages; name more pages")
    for task in ALONE if together > 1 else AMONG:
        if tasks.get(task):
            number = "one page" if task in ALONE else "several pages"
            raise DataError(f"pages: tasks has {task!r}, which is about {number}, but together is {together}")
