"""What is asked about pages, and what is to be said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from chiasm.data.pages.content import Fact, Page
from chiasm.data.pages.layout import PagePart, PagePicture, least_canvas
from chiasm.data.pages.words import PageWords
from chiasm.data.sample import Message, Picture
from chiasm.data.world.dice import Dice
from chiasm.views.focus import BOX_QUESTION, FOCUS_QUESTION, Box, Focus

ALONE = ("box", "zoom")  # tasks about one page that stands alone
AMONG = ("which_page",)  # tasks about one page among several
TASKS = ("question", "read", "markdown", "json", *ALONE, *AMONG)

Document = tuple[tuple[Message, ...], dict[str, Any]]


class Sheet(NamedTuple):
    """A page as it is shown, with the words of questions about it."""

    picture: PagePicture
    words: PageWords

    @property
    def page(self) -> Page:
        return self.picture.page

    def box(self, fact: Fact) -> Box:
        """Round all that must be read for an answer, in fractions of the page's width and height."""
        layout = self.picture.layout
        boxes = [layout.boxes[line][cell] for line, cell in fact.where]
        left, top = (min(box[i] for box in boxes) for i in (0, 1))
        right, bottom = (max(box[i] for box in boxes) for i in (2, 3))
        height, width = layout.size
        return left / width, top / height, right / width, bottom / height

    def truth(self, fact: Fact | None) -> dict[str, Any]:
        """fact: what is asked; None: the whole page."""
        page, picture = self.page, self.picture
        every = ((line, cell) for line, each in enumerate(page.lines) for cell in range(len(each.cells)))
        where = every if fact is None else fact.where
        resolution = least_canvas(page, picture.canvas, where, picture.typeface)
        truth = {"kind": page.kind, "resolution": resolution}
        if fact is None:
            return truth
        return {**truth, "type": fact.type, "question": fact.question, "box": self.box(fact)}


def documents(task: str, count: int, sheets: Sequence[Sheet], margin: int, dice: Dice) -> Iterator[Document]:
    """Up to `count` documents of a task. margin: pixels round the part that `zoom` enlarges."""
    if task in ("read", "markdown", "json"):
        for _ in range(count):
            number = dice.below(len(sheets))
            yield _whole_page(task, sheets, number)
    elif task == "which_page":
        for number, fact in dice.sample(_only_on(sheets), count):
            yield _exchange(_asked(sheets, None, fact.question), fact.answer), _truth(sheets, number, fact)
    else:
        facts = [(number, fact) for number, sheet in enumerate(sheets) for fact in sheet.page.facts]
        for number, fact in dice.sample(facts, count):
            yield _about(task, sheets, number, fact, margin), _truth(sheets, number, fact)


def _whole_page(task: str, sheets: Sequence[Sheet], number: int) -> Document:
    sheet = sheets[number]
    content = sheet.page.content
    answer = {"read": sheet.page.text, "markdown": content.markdown, "json": content.json}[task]
    return _exchange(_asked(sheets, number, sheet.words.ask(task)), answer), _truth(sheets, number, None)


def _about(task: str, sheets: Sequence[Sheet], number: int, fact: Fact, margin: int) -> tuple[Message, ...]:
    if task == "question":
        return _exchange(_asked(sheets, number, fact.question), fact.answer)
    picture = sheets[number].picture
    box = tuple(round(edge, 2) for edge in sheets[number].box(fact))
    answer = f"[{','.join(f'{edge:.2f}' for edge in box)}]"
    where = _exchange((picture, BOX_QUESTION.replace("{question}", fact.question)), answer)
    if task == "box":
        return where
    part = PagePart(picture, Focus.of(picture.size, box, margin).crop)  # type: ignore[arg-type]
    again = FOCUS_QUESTION.replace("{question}", fact.question)
    return (*where, *_exchange((part, again), fact.answer))


def _only_on(sheets: Sequence[Sheet]) -> list[tuple[int, Fact]]:
    """Which page each text is on that stands on one alone: (page, fact)."""
    texts, facts = [sheet.page.text for sheet in sheets], []
    for number, sheet in enumerate(sheets):
        for line, each in enumerate(sheet.page.lines):
            for cell, written in enumerate(each.cells):
                if sum(written.text in text for text in texts) == 1 and not written.text.isdigit():
                    question = sheet.words.ask("page of?", text=written.text)
                    facts.append((number, Fact("which_page", question, str(number + 1), ((line, cell),))))
    return facts


def _asked(sheets: Sequence[Sheet], number: int | None, question: str) -> tuple[str | Picture, ...]:
    """The pages and a question. number: of the page that it is about, where it says so."""
    if len(sheets) == 1:
        return sheets[0].picture, question
    shown: list[str | Picture] = []
    for place, sheet in enumerate(sheets, 1):
        shown += [sheet.words.ask("page number", page=place), sheet.picture]
    if number is not None:
        question = sheets[number].words.ask("on page", page=number + 1, question=question)
    return *shown, question


def _truth(sheets: Sequence[Sheet], number: int, fact: Fact | None) -> dict[str, Any]:
    page = {"page": number + 1} if len(sheets) > 1 else {}
    return {**sheets[number].truth(fact), **page}


def _exchange(user: tuple[str | Picture, ...], answer: str) -> tuple[Message, Message]:
    return Message("user", user), Message("assistant", (answer,))
