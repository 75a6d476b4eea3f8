"""Questions about a scene whose answers are exact, well-posed and not to be guessed without looking.

Nothing in a question's words tells its answer: yes and no are tossed before the question is made, counts are
uniform over scenes, cells and directions are uniform, and what is asked about but is not there is distributed
as what is (`composer.Draft.absent`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chiasm.data.world.composer import Draft
from chiasm.data.world.dice import Dice
from chiasm.data.world.phrases import Phrases


@dataclass(frozen=True, slots=True)
class Question:
    """choices: every answer that this question could have; empty if any name could be one."""

    type: str
    text: str
    answer: str
    choices: tuple[str, ...] = ()


def what(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """What is at this cell? One of the occupied ones."""
    scene = draft.scene
    return [
        Question("what", say.what(say.cell(thing.cell, scene.grid)), say.name(thing.emoji))
        for thing in dice.sample(scene.things, n)
    ]


def where(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """In which cell is the one thing of this name?"""
    grid = draft.scene.grid
    cells = tuple(say.cell(cell, grid) for cell in range(draft.scene.cells))
    return [
        Question("where", say.where(say.name(thing.emoji)), cells[thing.cell], cells)
        for thing in dice.sample(draft.scene.single, n)
    ]


def count(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """How many of this name? At most one a scene: only one answer can be uniform."""
    fitting = [emoji for emoji, times in draft.scene.counts.items() if times == draft.count]
    emoji = dice.pick(fitting or draft.absent)
    choices = tuple(map(str, range(5)))
    return [Question("count", say.count(say.name(emoji)), str(draft.count), choices)][:n]


def exist(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """Is something of this name there? Half of the time it is."""
    choices = (say.there, say.not_there)
    pairs = zip(dice.shuffle(list(draft.scene.counts)), dice.shuffle(draft.absent))
    questions = []
    for present, absent in list(pairs)[:n]:
        emoji, answer = (present, say.there) if dice.coin() else (absent, say.not_there)
        questions.append(Question("exist", say.exist(say.name(emoji)), answer, choices))
    return questions


def choice(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """Which of two names is there? The order is tossed."""
    pairs = zip(dice.shuffle(list(draft.scene.counts)), dice.shuffle(draft.absent))
    questions = []
    for present, absent in list(pairs)[:n]:
        one, other = names = tuple(say.name(emoji) for emoji in dice.shuffle((present, absent)))
        questions.append(Question("choice", say.choice(one, other), say.name(present), names))
    return questions


def relation(draft: Draft, say: Phrases, dice: Dice, n: int) -> list[Question]:
    """In which of the eight directions does one thing lie from another?"""
    scene = draft.scene
    pairs = [(a, b) for a in scene.single for b in scene.single if a is not b]
    questions = []
    for one, other in dice.sample(pairs, n):
        (row, column), (other_row, other_column) = scene.place(one.cell), scene.place(other.cell)
        answer = say.directions[_sign(row - other_row), _sign(column - other_column)]
        text = say.relation(say.name(one.emoji), say.name(other.emoji))
        questions.append(Question("relation", text, answer, tuple(say.directions.values())))
    return questions


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


Asker = Callable[[Draft, Phrases, Dice, int], list[Question]]

QUESTIONS: dict[str, Asker] = {ask.__name__: ask for ask in (what, where, count, exist, choice, relation)}
