"""Questions about a scene whose answers are exact, well-posed and not to be guessed without the image.

Nothing in a question's words tells its answer: yes and no are tossed before the question is made, counts are
uniform over scenes, cells and directions are uniform, and what is asked about but is not there is distributed
as what is (`composer.Draft.absent`). Only the names of strangers, which no scene shows, tell that they are not
there; they are few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from chiasm.data.world.assets import Emoji
from chiasm.data.world.composer import Draft
from chiasm.data.world.dice import Dice
from chiasm.data.world.phrases import Phrases
from chiasm.data.world.scene import Thing

STRANGE = 1 / 4  # share of strangers among the absent things that are asked about
UNANSWERABLE = "unanswerable"  # the type of a question about what is not there


@dataclass(frozen=True, slots=True)
class Question:
    """choices: every answer that this question could have; empty if any name could be one."""

    type: str
    text: str
    answer: str
    choices: tuple[str, ...] = ()


def what(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """What is at this cell? An occupied one, or an empty one where there is no answer."""
    scene = draft.scene

    def ask(cell: int, type_: str, answer: str) -> Question:
        return Question(type_, say.ask("what", cell=say.cell(cell, scene.grid)), answer)

    return [
        ask(dice.pick(scene.free), UNANSWERABLE, say.nothing)
        if scene.free and _unanswerable(draft, dice)
        else ask(thing.cell, "what", say.name(thing.emoji))
        for thing in dice.sample(scene.things, n)
    ]


def where(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """In which cell is the one thing of this name?"""
    cells = tuple(say.cell(cell, draft.scene.grid) for cell in range(draft.scene.cells))
    answers = _with_none(cells, draft, say)

    def ask(emoji: Emoji, type_: str, answer: str) -> Question:
        return Question(type_, say.ask("where", one=say.name(emoji)), answer, answers)

    return [
        ask(_absent(draft, dice), UNANSWERABLE, say.nowhere)
        if _unanswerable(draft, dice)
        else ask(thing.emoji, "where", cells[thing.cell])
        for thing in dice.sample(draft.scene.single, n)
    ]


def count(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """How many of this name? At most one a scene: only one answer can be uniform."""
    fitting = [emoji for emoji, times in draft.scene.counts.items() if times == draft.count]
    emoji = dice.pick(fitting) if fitting else _absent(draft, dice)
    choices = tuple(map(str, range(5)))
    return [Question("count", say.ask("count", one=say.name(emoji)), str(draft.count), choices)][:n]


def exist(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """Is something of this name there? Half of the time it is."""
    choices = (say.yes, say.no)
    questions = []
    for present, absent in list(_present_and_absent(draft, dice))[:n]:
        is_present = dice.coin()
        emoji = present if is_present else _perhaps_stranger(absent, draft, dice)
        text = say.ask("exist", one=say.name(emoji))
        questions.append(Question("exist", text, say.yes if is_present else say.no, choices))
    return questions


def choice(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """Which of two names is there? The order is tossed."""
    questions = []
    for present, absent in list(_present_and_absent(draft, dice))[:n]:
        one, other = names = tuple(say.name(emoji) for emoji in dice.shuffle((present, absent)))
        text = say.ask("choice", one=one, other=other)
        questions.append(Question("choice", text, say.name(present), names))
    return questions


def relation(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """In which of the eight directions does one thing lie from another?"""
    single = draft.scene.single
    answers = _with_none(tuple(say.directions.values()), draft, say)

    def ask(one: Emoji, other: Emoji, type_: str, answer: str) -> Question:
        return Question(type_, say.ask("relation", one=say.name(one), other=say.name(other)), answer, answers)

    return [
        ask(*_in_either_order(one.emoji, _absent(draft, dice), dice), UNANSWERABLE, say.nowhere)
        if _unanswerable(draft, dice)
        else ask(one.emoji, other.emoji, "relation", _direction(draft, say, one, other))
        for one, other in dice.sample([(a, b) for a in single for b in single if a is not b], n)
    ]


def answered_falsely(question: Question, draft: Draft, say: Phrases, dice: Dice) -> Question:
    """The question with an answer that it could have and has not."""
    answers = question.choices or tuple(say.name(emoji) for emoji in (*draft.scene.counts, *draft.absent))
    return replace(question, answer=dice.pick([each for each in answers if each != question.answer]))


def _direction(draft: Draft, say: Phrases, one: Thing, other: Thing) -> str:
    (row, column), (other_row, other_column) = (draft.scene.place(thing.cell) for thing in (one, other))
    return say.directions[_sign(row - other_row), _sign(column - other_column)]


def _present_and_absent(draft: Draft, dice: Dice) -> Iterator[tuple[Emoji, Emoji]]:
    return zip(dice.shuffle(list(draft.scene.counts)), dice.shuffle(draft.absent))


def _unanswerable(draft: Draft, dice: Dice) -> bool:
    return draft.unanswerable > 0 and dice.uniform() < draft.unanswerable


def _absent(draft: Draft, dice: Dice) -> Emoji:
    return _perhaps_stranger(dice.pick(draft.absent), draft, dice)


def _perhaps_stranger(absent: Emoji, draft: Draft, dice: Dice) -> Emoji:
    return dice.pick(draft.strangers) if draft.strangers and dice.uniform() < STRANGE else absent


def _in_either_order(one: Emoji, other: Emoji, dice: Dice) -> tuple[Emoji, Emoji]:
    return (one, other) if dice.coin() else (other, one)


def _with_none(answers: tuple[str, ...], draft: Draft, say: Phrases) -> tuple[str, ...]:
    return (*answers, say.nowhere) if draft.unanswerable > 0 else answers


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


Asker = Callable[[Draft, Phrases, Dice, int], list[Question]]

QUESTIONS: dict[str, Asker] = {ask.__name__: ask for ask in (what, where, count, exist, choice, relation)}
