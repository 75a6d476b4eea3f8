"""The texts of the world, in any language."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from chiasm.data.world.assets import Emoji, Language
from chiasm.data.world.dice import Dice
from chiasm.data.world.scene import Scene
from chiasm.data.world.wordings import Phrasings, Wording, as_typed


class Phrases(ABC):
    """Every sentence of one language.

    phrasings: which wordings of questions and instructions are used. dice: choose among them; without dice, or with
    phrasings `plain`, it is the plainest.
    """

    language: ClassVar[Language]
    wordings: ClassVar[Mapping[str, Wording]]  # by type of question or instruction
    directions: ClassVar[dict[tuple[int, int], str]]  # by (rows down, columns right), each -1, 0 or 1
    yes: ClassVar[str]  # the answers of `exist`
    no: ClassVar[str]
    nowhere: ClassVar[str]  # where something is that is not there
    nothing: ClassVar[str]  # what is at an empty cell
    then: ClassVar[str]  # between the two pictures of an analogy
    next_pair: ClassVar[str]
    again: ClassVar[str]  # before a change of the picture of a number
    region: ClassVar[Mapping[str, str]]  # what stands before the numbers of a box and of a point

    def __init__(self, phrasings: Phrasings = "plain", dice: Dice | None = None):
        self.phrasings, self.dice = phrasings, dice

    def ask(self, kind: str, *, one: str = "", other: str = "", cell: str = "", caption: str = "") -> str:
        """A question or instruction about the things called `one` and `other`, a cell or a caption."""
        template = self.wordings[kind].template(self.phrasings, self.dice)
        text = template.format(**self.forms(one, other), cell=cell, caption=caption)
        return text if self.phrasings == "plain" or self.dice is None else as_typed(text, self.dice)

    def name(self, emoji: Emoji) -> str:
        return emoji.name(self.language)

    def forms(self, one: str, other: str) -> dict[str, str]:
        """The names in the forms that the wordings use."""
        return {"one": one, "other": other}

    @abstractmethod
    def cell(self, cell: int, grid: tuple[int, int]) -> str:
        """The name of a cell: unique in the grid, and the whole answer of `where`."""

    @abstractmethod
    def label(self, emoji: Emoji) -> str:
        """The caption of an image of one thing."""

    @abstractmethod
    def caption(self, scene: Scene) -> str:
        """Every thing with its cell, in reading order."""


def phrases(language: Language, phrasings: Phrasings = "plain", dice: Dice | None = None) -> Phrases:
    """The sentences of a language."""
    from chiasm.data.world.chinese import Chinese
    from chiasm.data.world.english import English

    return {"en": English, "zh": Chinese}[language](phrasings, dice)
