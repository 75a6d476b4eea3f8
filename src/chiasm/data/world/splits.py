"""Which scenes are kept out of training.

A *combination* is an unordered pair of different emoji that stand in one scene. A stable hash of the two,
without any seed, sends a share of all pairs to the held-out side, and then:

- `train`: no two things of the scene are a held-out pair, nor emoji that its questions only mention.
- `combination`: at least one pair of the scene is held out, so that the scene's set of emoji never occurs in
  training, nor does any scene in which these two meet.
- `emoji`: every thing is one of the `unseen` emoji that follow the training ones in the fixed order.
- `style`: composed as in `train`, drawn in a style that training never shows.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Literal

import numpy as np

from chiasm.data.world.assets import Emoji

Split = Literal["train", "combination", "emoji", "style"]


def is_held_out(one: Emoji, other: Emoji, share: float) -> bool:
    """True if this pair never meets in a training scene; `share` of all pairs (0 to 1) are held out."""
    return bool(_pair_hash(_hash(one), _hash(other)) < share)


@lru_cache(maxsize=8)
def allowed_together(emoji: tuple[Emoji, ...], share: float) -> tuple[int, ...]:
    """For each emoji a bit mask of the others (by position) that may stand with it in training."""
    hashes = np.array([_hash(one) for one in emoji], dtype=np.uint64)
    masks = []
    for i, one in enumerate(hashes):
        allowed = _pair_hash(one, hashes) >= share
        allowed[i] = False
        masks.append(int.from_bytes(np.packbits(allowed, bitorder="little").tobytes(), "little"))
    return tuple(masks)


def strangers(emoji: tuple[Emoji, ...], split: Split) -> tuple[Emoji, ...]:
    """Those of `emoji` whose names questions of this split may give to things that are never there.

    A quarter of the names never occurs in training and is what the other splits ask about.
    """
    held_out = [bool(_hash(one) % np.uint64(4) == 0) for one in emoji]
    return tuple(one for one, held in zip(emoji, held_out) if held == (split != "train"))


def _hash(emoji: Emoji) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(emoji.code.encode(), digest_size=8).digest(), "little"))


def _pair_hash(one: np.uint64, other):
    """SplitMix64's finaliser over the sum of two hashes, as a number in [0, 1)."""
    with np.errstate(over="ignore"):
        mixed = one + other
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed / np.float64(2**64)
