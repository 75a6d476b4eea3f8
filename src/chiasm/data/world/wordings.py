"""Ways to word one kind of question or instruction, some of them kept out of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chiasm.data.world.dice import Dice

Phrasings = Literal["train", "held_out", "both", "plain"]

# Shares of the wordings that come as people type them.
UNMARKED, LOWER = 0.2, 0.2


@dataclass(frozen=True)
class Wording:
    """Templates with the names of what they speak of in braces.

    train: what training may show; the first is the plainest. held_out: what it never shows.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def template(self, phrasings: Phrasings, dice: Dice | None) -> str:
        if phrasings == "plain" or dice is None:
            return self.train[0]
        return dice.pick(self.held_out if phrasings == "held_out" else self.train)


def as_typed(text: str, dice: Dice) -> str:
    """The sentence, now and then without its closing mark or its capital."""
    if dice.uniform() < UNMARKED:
        text = text.rstrip("?.。")
    if dice.uniform() < LOWER:
        text = text[:1].lower() + text[1:]
    return text
