"""The data source `pages`: written pages with questions, transcripts and boxes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any, Literal

import PIL
from pydantic import Field

from chiasm.data import Message, Sample, Source
from chiasm.data.pages.content import KINDS, Fact, Page
from chiasm.data.pages.layout import PagePart, PagePicture, lay_out, least_canvas
from chiasm.data.world.composer import TINTS
from chiasm.data.world.curated import CURATED
from chiasm.data.world.dice import Dice
from chiasm.errors import DataError, nearest
from chiasm.views.focus import BOX_QUESTION, FOCUS_QUESTION, Box, Focus

VERSION = 1  # raised when the same options would give other samples
TASKS = ("question", "read", "markdown", "box", "zoom")
DEFAULT_KINDS = dict.fromkeys(KINDS, 1)
DEFAULT_TASKS = {"question": 4}
HELD_OUT = 8  # one name of so many
MOST_ROWS = 24
MOST = 1_000  # documents of a task and a page

Split = Literal["train", "names"]


class Pages(Source, name="pages"):
    """Receipts, tables, labels and letters, written in English, with exact ground truth.

    A group is a page; each of its samples is a document of its own. Every truth has `resolution`: the least number
    of pixels of the page's longer side with which all that must be read for the answer has capital letters of 7
    pixels, and `box`, where it stands, in fractions of the page's sides.

    Args:
        pages: number of pages.
        canvas: pixels of a page's longer side.
        rows: fewest and most rows, items, fields or sentences on a page; the more, the smaller their letters.
        kinds: how often a page is a receipt, a table, a label, a letter, relative to each other.
        tasks: how many documents of each task a page gives: question; read (all text of the page); markdown (a
            table, nothing of other pages); box (where the answer stands, as DualFocus asks for it); zoom
            (DualFocus's two rounds: the box, then the answer beside the enlarged part).
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
        names: Annotated[int, Field(ge=64, le=176)] = 128,
        split: Split = "train",
        tints: Annotated[int, Field(ge=0, le=8)] = 0,
        margin: Annotated[int, Field(ge=0, le=4096)] = 25,
        seed: int = 0,
    ):
        self.options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        _check(rows, kinds, tasks)
        self.pages, self.canvas, self.rows, self.split = pages, canvas, rows, split
        self.kinds = [kind for kind, share in kinds.items() for _ in range(share)]
        self.tasks, self.tints, self.margin, self.seed = dict(tasks), tints, margin, seed
        every = [entry.split(" ")[1] for line in CURATED.split("\n") if line for entry in line.split("|")][
            :names
        ]
        self.names = [name for i, name in enumerate(every) if (i % HELD_OUT == 0) == (split == "names")]

    def __len__(self) -> int:
        return self.pages

    def __getitem__(self, index: int) -> list[Sample]:
        if not 0 <= index < self.pages:
            raise IndexError(f"there are pages 0 to {self.pages - 1}; page {index} was asked for")
        page, picture = self.page(index), self.picture(index)
        return [
            self._sample(index, number, task, *document)
            for task, count in self.tasks.items()
            for number, document in enumerate(self._documents(task, count, page, picture, index), 1)
        ]

    def page(self, index: int) -> Page:
        """What stands on page `index`."""
        dice = Dice("page", self.seed, self.split, index)
        low, high = self.rows
        return KINDS[dice.pick(self.kinds)](self.names, low + dice.below(high - low + 1), dice)

    def picture(self, index: int) -> PagePicture:
        dice = Dice("paper", self.seed, self.split, index)
        tint = TINTS[dice.below(self.tints)] if self.tints else (255, 255, 255)
        return PagePicture(self.page(index), self.canvas, tint)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        record = f"pages {VERSION} {sorted(self.options.items())} pillow {PIL.__version__}"
        return blake2b(record.encode(), digest_size=16).hexdigest()

    def _documents(
        self, task: str, count: int, page: Page, picture: PagePicture, index: int
    ) -> Iterator[tuple[tuple[Message, ...], dict[str, Any]]]:
        dice = Dice(task, self.seed, self.split, index)
        if task == "read":
            for _ in range(count):
                yield _exchange((picture, "Read the page."), page.text), self._truth(page, None)
        elif task == "markdown":
            for _ in range(count if page.table else 0):
                messages = _exchange((picture, "Write the table as Markdown."), page.markdown)
                yield messages, self._truth(page, None)
        else:
            for fact in dice.sample(page.facts, count):
                yield self._asked(task, fact, page, picture), self._truth(page, fact)

    def _asked(self, task: str, fact: Fact, page: Page, picture: PagePicture) -> tuple[Message, ...]:
        if task == "question":
            return _exchange((picture, fact.question), fact.answer)
        box = tuple(round(edge, 2) for edge in self.box(page, fact))
        answer = f"[{','.join(f'{edge:.2f}' for edge in box)}]"
        where = _exchange((picture, BOX_QUESTION.replace("{question}", fact.question)), answer)
        if task == "box":
            return where
        part = PagePart(picture, Focus.of(picture.size, box, self.margin).crop)  # type: ignore[arg-type]
        again = FOCUS_QUESTION.replace("{question}", fact.question)
        return (*where, *_exchange((part, again), fact.answer))

    def box(self, page: Page, fact: Fact) -> Box:
        """Round all that must be read for an answer, in fractions of the page's width and height."""
        layout = lay_out(page, self.canvas)
        boxes = [layout.boxes[line][cell] for line, cell in fact.where]
        left, top = (min(box[i] for box in boxes) for i in (0, 1))
        right, bottom = (max(box[i] for box in boxes) for i in (2, 3))
        height, width = layout.size
        return left / width, top / height, right / width, bottom / height

    def _truth(self, page: Page, fact: Fact | None) -> dict[str, Any]:
        lines = {line for line, _ in fact.where} if fact else set(range(len(page.lines)))
        truth = {"kind": page.kind, "resolution": least_canvas(page, self.canvas, lines)}
        if fact is None:
            return truth
        return {**truth, "type": fact.type, "question": fact.question, "box": self.box(page, fact)}

    def _sample(
        self, index: int, number: int, task: str, messages: tuple[Message, ...], truth: dict[str, Any]
    ) -> Sample:
        answer = messages[-1].content[0]
        truth = {"task": task, "type": task, "split": self.split, **truth, "answer": answer}
        return Sample(f"page {index} of pages({self.split}), {task} {number}", messages, truth)


def _exchange(user: tuple[Any, ...], answer: str) -> tuple[Message, Message]:
    return Message("user", user), Message("assistant", (answer,))


def _check(rows: tuple[int, int], kinds: dict[str, int], tasks: dict[str, int]) -> None:
    low, high = rows
    if not 1 <= low <= high <= MOST_ROWS:
        raise DataError(f"pages: rows is {list(rows)}; two rising numbers from 1 to {MOST_ROWS}")
    for option, given, known in (("kinds", kinds, tuple(KINDS)), ("tasks", tasks, TASKS)):
        for name, count in given.items():
            if name not in known:
                raise DataError(f"pages: {option} has {name!r}{nearest(name, known)}")
            if not 0 <= count <= MOST:
                raise DataError(f"pages: {option}.{name} is {count}; from 0 to {MOST}")
        if not sum(given.values()):
            raise DataError(f"pages: {option} is all 0; there is nothing to write")
