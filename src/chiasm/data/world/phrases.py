"""What the world says, in any language: one method a sentence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import ClassVar

from chiasm.data.world.assets import Emoji, Language
from chiasm.data.world.scene import Scene


class Phrases(ABC):
    """Every sentence of one language. A name of a method is the type of question or instruction it words."""

    language: ClassVar[Language]
    directions: ClassVar[dict[tuple[int, int], str]]  # by (rows down, columns right), each -1, 0 or 1
    there: ClassVar[str]  # the answers of `exist`
    not_there: ClassVar[str]
    describe: ClassVar[str]
    which: ClassVar[str]  # the question about a picture of one thing
    read: ClassVar[str]
    then: ClassVar[str]  # between the two pictures of an analogy
    next_pair: ClassVar[str]

    def name(self, emoji: Emoji) -> str:
        return emoji.name(self.language)

    @abstractmethod
    def cell(self, cell: int, grid: tuple[int, int]) -> str:
        """The name of a cell: unique in the grid, and the whole answer of `where`."""

    @abstractmethod
    def label(self, emoji: Emoji) -> str:
        """What a picture of one thing shows, as a caption."""

    @abstractmethod
    def caption(self, scene: Scene) -> str:
        """Every thing with its cell, in reading order."""

    @abstractmethod
    def draw(self, scene: Scene) -> str: ...

    @abstractmethod
    def what(self, cell: str) -> str: ...

    @abstractmethod
    def where(self, name: str) -> str: ...

    @abstractmethod
    def count(self, name: str) -> str: ...

    @abstractmethod
    def exist(self, name: str) -> str: ...

    @abstractmethod
    def choice(self, one: str, other: str) -> str: ...

    @abstractmethod
    def relation(self, one: str, other: str) -> str:
        """In which direction is `one`, seen from `other`?"""

    @abstractmethod
    def remove(self, name: str) -> str: ...

    @abstractmethod
    def replace(self, name: str, other: str) -> str: ...

    @abstractmethod
    def move(self, name: str, cell: str) -> str: ...


@cache
def phrases(language: Language) -> Phrases:
    """The sentences of a language."""
    from chiasm.data.world.chinese import Chinese
    from chiasm.data.world.english import English

    return {"en": English, "zh": Chinese}[language]()
