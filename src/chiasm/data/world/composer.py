"""How a scene is made up: by its index alone, so that any scene is to be had at any time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from chiasm.data.world.assets import Emoji
from chiasm.data.world.dice import Dice
from chiasm.data.world.scene import Scene, Thing
from chiasm.data.world.splits import Split, allowed_together

# Light grounds on which every emoji of the curated list stands out, white ones too.
TINTS = (
    (255, 217, 184), (169, 221, 245), (191, 235, 200), (211, 195, 242),
    (251, 239, 166), (248, 195, 208), (227, 211, 180), (166, 230, 223),
)  # fmt: skip
SPARE = 4  # emoji that a scene's questions may mention although they are not there
SIDES = (0.7, 0.9)  # shares of the cell's side between which a thing's side varies at jitter 1


@dataclass(frozen=True)
class Draft:
    """A scene and what its questions need to be unguessable.

    absent: emoji that might as well stand in the scene, drawn from the same distribution, but do not.
    count: the answer of its counting question, uniform over scenes.
    unanswerable: share of the questions what, where and relation that ask about what is not there.
    strangers: emoji that questions name, but no scene shows.
    """

    scene: Scene
    absent: tuple[Emoji, ...]
    count: int
    unanswerable: float
    strangers: tuple[Emoji, ...]


@dataclass(frozen=True)
class Composer:
    """Makes the scenes of one split.

    pool: emoji to choose from. objects: fewest and most things a scene. held_out: share of pairs kept out of
    training. jitter: 0 (all centred, one size) to 1. tints: how many of `TINTS` to use.
    unanswerable, strangers: of its drafts.
    """

    split: Split
    pool: tuple[Emoji, ...]
    grid: tuple[int, int]
    objects: tuple[int, int]
    held_out: float
    styles: tuple[str, ...]
    jitter: float
    tints: int
    seed: int
    unanswerable: float
    strangers: tuple[Emoji, ...]

    @property
    def largest_count(self) -> int:
        """Beside the things that are counted there is always another one to ask about."""
        return max(1, min(4, self.objects[1] - 1))

    def draft(self, index: int) -> Draft:
        """Scene `index`, in tens of microseconds."""
        dice = Dice("scene", self.seed, self.split, index)
        count = dice.below(self.largest_count + 1)
        low, high = self.objects
        if count > 1:  # leave two different others where there is room, so that every type can be asked
            low = max(low, min(high, count + 2))
        total = low + dice.below(high - low + 1)
        present, absent = self._cast(total if count < 2 else total - count + 1, dice)
        members = [present[0]] * (count - 1 if count > 1 else 0) + present
        cells = dice.sample(range(self.grid[0] * self.grid[1]), len(members))
        things = [self.place(emoji, cell, dice) for emoji, cell in zip(members, cells)]
        ground = Scene(self.grid, (), TINTS[dice.below(self.tints)], dice.pick(self.styles))
        return Draft(ground.holding(things), tuple(absent), count, self.unanswerable, self.strangers)

    def place(self, emoji: Emoji, cell: int, dice: Dice) -> Thing:
        """An emoji in a cell, its place and size there tossed."""
        side = 0.8 + self.jitter * (dice.uniform(*SIDES) - 0.8)
        across = 0.5 + self.jitter * (dice.uniform() - 0.5)
        down = 0.5 + self.jitter * (dice.uniform() - 0.5)
        return Thing(emoji, cell, side, across, down)

    @cached_property
    def _allowed(self) -> tuple[int, ...]:
        return allowed_together(self.pool, self.held_out)

    def _cast(self, different: int, dice: Dice) -> tuple[list[Emoji], list[Emoji]]:
        """`different` emoji that are there and `SPARE` that are not, of one distribution."""
        if self.split == "emoji":
            cast = dice.sample(self.pool, different + SPARE)
        elif self.split == "combination":
            cast = self._with_held_out_pair(max(2, different), dice)
            different = max(2, different)
            present = dice.shuffle(cast[:different])
            return present, cast[different:]
        else:
            cast = dice.shuffle(self._compatible(different + SPARE, dice))
        different = min(different, len(cast) - 1)
        return cast[:different], cast[different:]

    def _compatible(self, n: int, dice: Dice) -> list[Emoji]:
        """Emoji that may all meet in training; fewer than `n` if a small set does not have so many."""
        best: list[int] = []
        for _ in range(20):
            chosen: list[int] = []
            open_to = (1 << len(self.pool)) - 1
            while len(chosen) < n and open_to:
                i = dice.below(len(self.pool))
                if open_to >> i & 1:
                    chosen.append(i)
                    open_to &= self._allowed[i]
            best = max(best, chosen, key=len)
            if len(best) == n:
                break
        return [self.pool[i] for i in best]

    def _with_held_out_pair(self, different: int, dice: Dice) -> list[Emoji]:
        """A held-out pair first, then any others."""
        while True:
            first, second = dice.below(len(self.pool)), dice.below(len(self.pool))
            if first != second and not self._allowed[first] >> second & 1:
                break
        rest = [i for i in range(len(self.pool)) if i not in (first, second)]
        others = dice.sample(rest, different - 2 + SPARE)
        return [self.pool[i] for i in (first, second, *others)]
