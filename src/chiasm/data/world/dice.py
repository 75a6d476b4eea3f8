"""Random numbers by name: the same seed and path give the same throws, on any machine, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


class Dice:
    """A stream of throws from numpy's Philox, keyed by a hash of `path` (seed, split, index, ...)."""

    def __init__(self, *path: str | int):
        key = int.from_bytes(blake2b(repr(path).encode(), digest_size=16).digest(), "little")
        self._generator = np.random.Generator(np.random.Philox(key=key))
        self._throws: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        if not self._throws:
            self._throws = self._generator.random(32).tolist()  # one call a block: a call costs microseconds
        return low + (high - low) * self._throws.pop()

    def below(self, n: int) -> int:
        """A whole number in [0, n)."""
        return int(self.uniform() * n)

    def coin(self) -> bool:
        return self.uniform() < 0.5

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]

    def sample(self, items: Sequence[Item], n: int) -> list[Item]:
        """`n` different items (all of them if there are fewer), in random order."""
        pool = list(items)
        n = min(n, len(pool))
        for i in range(n):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:n]

    def shuffle(self, items: Sequence[Item]) -> list[Item]:
        return self.sample(items, len(items))
