"""The data source `binding`: lists of things that belong together, in words or as an image, and what is whose.

The task of "Seeing to Generalize" (arXiv 2602.15183): colour and shape lead to an item. Only its abstract says how;
lengths, wording and what the image looks like are choices of this project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal

from pydantic import PositiveInt

from chiasm.data import Message, Picture, Sample, Source
from chiasm.data.world.assets import Emoji, assets_version, emoji_set
from chiasm.data.world.dice import Dice
from chiasm.data.world.glyphs import COLOURS, SHAPES, Glyph, GlyphPicture, NoisePicture
from chiasm.errors import DataError
from chiasm.parts.bounds import Seed

VERSION = 2  # raised when the same options would give other lists
FILLER = "."
Form = Literal["words", "offset", "grid", "image", "shuffled", "noise"]


@dataclass(frozen=True)
class BindingList:
    """Glyphs in the order of the list, the cell of each in the image, and the fillers before the list."""

    glyphs: tuple[Glyph, ...]
    cells: tuple[int, ...]
    fillers: int


class Binding(Source, name="binding"):
    """Lists of coloured shapes, each with an item, and questions which item belongs to a colour and a shape.

    A group is a list; its one sample is a conversation of questions about it, of which no two ask the same.

    Args:
        form: how the list is given. `words`: in words, from the start. `offset`: in words, behind a random number
            of fillers. `grid`: in words, cell by cell of the image, a filler for an empty cell. `image`: as an
            image, at random places. `shuffled`: the image of another list. `noise`: an image without a meaning.
        length: fewest and most things in a list.
        colours: how many, 2 to 8.
        shapes: how many, 2 to 16.
        items: how many, each an emoji with a name of one word.
        conjunction: whether things of a list share shapes and colours, so that both are needed; else every shape
            stands in it once.
        questions: how many about a list; of a shorter list, one of each thing.
        grid: rows and columns of the image.
        cell: side of a cell in pixels.
        fillers: most fillers before a list of the form `offset`.
        lists: number of lists.
        seed: other lists for another seed.
    """

    def __init__(
        self,
        *,
        form: Form = "words",
        length: tuple[PositiveInt, PositiveInt] = (2, 6),
        colours: PositiveInt = 8,
        shapes: PositiveInt = 16,
        items: PositiveInt = 32,
        conjunction: bool = False,
        questions: PositiveInt = 1,
        grid: PositiveInt = 5,
        cell: PositiveInt = 16,
        fillers: PositiveInt = 60,
        lists: PositiveInt = 20000,
        seed: Seed = 0,
    ):
        self.options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self.check_together(self.options)
        self.form, self.length, self.conjunction, self.questions = form, length, conjunction, questions
        self.grid, self.cell, self.fillers, self.lists, self.seed = grid, cell, fillers, lists, seed
        self.colours, self.shapes = list(COLOURS)[:colours], list(SHAPES)[:shapes]
        self.items = one_word_emoji()[:items]

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        _check(options)

    def __len__(self) -> int:
        return self.lists

    def __getitem__(self, index: int) -> list[Sample]:
        if not 0 <= index < self.lists:
            raise IndexError(f"there are lists 0 to {self.lists - 1}; list {index} was asked for")
        # The same list in every form: the forms differ in nothing else.
        things = self._list(Dice("binding", self.seed, index))
        dice = Dice("binding questions", self.seed, index)
        slots = dice.sample(range(len(things.glyphs)), self.questions)
        first, *others = [
            (_key(things.glyphs[slot]), f" {things.glyphs[slot].emoji.english}") for slot in slots
        ]
        images, words = self._given(things, index)
        messages = [
            Message("user", (*images, f"{words}{first[0]}")),
            Message("assistant", (first[1],)),
        ]
        for key, item in others:
            messages += [Message("user", (key,)), Message("assistant", (item,))]
        truth = {
            "task": "binding",
            "type": f"length {len(things.glyphs)}",
            "length": len(things.glyphs),
        }
        if not others:
            truth |= self._swapped(things, slots[0], dice)
        return [Sample(f"list {index} of binding({self.form})", tuple(messages), truth)]

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        record = f"binding {VERSION} {sorted(self.options.items())} {assets_version()}"
        return blake2b(record.encode(), digest_size=16).hexdigest()

    def _list(self, dice: Dice) -> BindingList:
        low, high = self.length
        count = low + dice.below(high - low + 1)
        emoji = dice.sample(self.items, count)
        if self.conjunction:
            keys = dice.sample([(c, s) for c in self.colours for s in self.shapes], count)
        else:
            keys = [(dice.pick(self.colours), shape) for shape in dice.sample(self.shapes, count)]
        glyphs = tuple(Glyph(*key, one) for key, one in zip(keys, emoji, strict=True))
        cells = tuple(dice.sample(range(self.grid**2), count))
        return BindingList(glyphs, cells, dice.below(self.fillers + 1))

    def _given(self, things: BindingList, index: int) -> tuple[tuple[Picture, ...], str]:
        """The list as it is given before the first question: as images, or in words."""
        if self.form == "noise":
            return (NoisePicture(self.grid * self.cell, index),), ""
        if self.form == "shuffled":
            things = self._list(Dice("binding of another", self.seed, index))
        if self.form in ("image", "shuffled"):
            placed = list(zip(things.cells, things.glyphs, strict=True))
            return (GlyphPicture(placed, self.grid, self.cell),), ""
        if self.form == "grid":
            cells = dict(zip(things.cells, things.glyphs, strict=True))
            return (), _words([cells.get(cell) for cell in range(self.grid**2)])
        before: list[Glyph | None] = [None] * (things.fillers if self.form == "offset" else 0)
        return (), _words([*before, *things.glyphs])

    def _swapped(self, things: BindingList, slot: int, dice: Dice) -> dict[str, Any]:
        """The same list with the thing that is asked for in another's place, and what stands in its own then.

        Who looks a thing up by what it is answers as before; who looks where it stood answers the other.
        """
        if self.form != "words" or len(things.glyphs) < 2:
            return {}
        other = dice.pick([i for i in range(len(things.glyphs)) if i != slot])
        order = list(things.glyphs)
        order[slot], order[other] = order[other], order[slot]
        key = _key(things.glyphs[slot])
        return {
            "swapped": f"{_words(order)}{key}",
            "in_its_place": things.glyphs[other].emoji.english,
            "slot": slot,
        }


def one_word_emoji() -> list[Emoji]:
    """Emoji whose names are one word and no colour or shape, the first ones looking least alike."""
    words = {*COLOURS, *SHAPES}
    return [one for one in emoji_set() if one.english.isalpha() and one.english.lower() not in words]


# A word has the space before it wherever it stands, so that a tokenizer has one token for it.
def _key(glyph: Glyph) -> str:
    return f" {glyph.colour} {glyph.shape}"


def _words(glyphs: Sequence[Glyph | None]) -> str:
    return "".join(f" {FILLER}" if one is None else f"{_key(one)} {one.emoji.english}" for one in glyphs)


def _check(options: Mapping[str, Any]) -> None:
    low, high = options["length"]
    keys = options["colours"] * options["shapes"] if options["conjunction"] else options["shapes"]
    most = min(keys, options["items"], options["grid"] ** 2)
    limits = {
        "length": (low <= high <= most, f"two rising numbers up to {most}, of which each thing is another"),
        "colours": (2 <= options["colours"] <= len(COLOURS), f"from 2 to {len(COLOURS)}"),
        "shapes": (2 <= options["shapes"] <= len(SHAPES), f"from 2 to {len(SHAPES)}"),
        "items": (options["items"] <= len(one_word_emoji()), f"at most {len(one_word_emoji())}"),
        "cell": (8 <= options["cell"] <= 256, "from 8 to 256 pixels"),
        "grid": (options["grid"] <= 64, "at most 64"),
    }
    for name, (holds, right) in limits.items():
        if not holds:
            raise DataError(f"binding: {name} is {options[name]!r}; it must be {right}")
