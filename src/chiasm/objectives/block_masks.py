"""Which patches of a picture are masked: rectangles, as in BEiT."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

NARROWEST = 0.3  # height by width of a rectangle, at least and inverted at most


def block_masks(images: int, grid: tuple[int, int], count: int, least: int) -> Bool[Tensor, "n gh gw"]:
    """For each picture `count` patches in rectangles of at least `least` patches (arXiv 2106.08254, algorithm 1).

    A rectangle that would mask too many patches masks some of its own at random, so that all pictures have as
    many. With a `least` of 1 they may be single patches. Draws from torch's random numbers.
    """
    chance = np.random.default_rng(int(torch.randint(2**62, ())))
    return torch.from_numpy(np.stack([_mask(chance, grid, count, least) for _ in range(images)]))


def _mask(chance: np.random.Generator, grid: tuple[int, int], count: int, least: int) -> np.ndarray:
    mask = np.zeros(grid, dtype=bool)
    while (lacking := count - int(mask.sum())) > 0:
        rows, columns = _rectangle(chance, grid, min(least, lacking), lacking)
        top, left = chance.integers(grid[0] - rows + 1), chance.integers(grid[1] - columns + 1)
        inside = np.zeros(grid, dtype=bool)
        inside[top : top + rows, left : left + columns] = True
        new = np.flatnonzero(inside & ~mask)
        mask.flat[chance.permutation(new)[:lacking]] = True
    return mask


def _rectangle(chance: np.random.Generator, grid: tuple[int, int], least: int, most: int) -> tuple[int, int]:
    """Rows and columns of about `least` to `most` patches."""
    area = chance.uniform(least, most)
    shape = math.exp(chance.uniform(math.log(NARROWEST), -math.log(NARROWEST)))
    sides = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
    return min(max(sides[0], 1), grid[0]), min(max(sides[1], 1), grid[1])
