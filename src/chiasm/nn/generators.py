"""Random numbers for requests that are drawn together: each has a source of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.errors import ChiasmError, quoted

State = list[Mapping[str, Any]]

SEEDS = 2**64  # that there are
MOST_IMAGES = 10_000  # of one prompt in one call

PIXELS = 1  # purposes of a request's numbers, beside the drawing of its images (0)
WORDS = 2  # of the first word of an answer; each further one has the next

_PURPOSE_BITS = 64  # of a key of 128, above those of the seed


class Generators:
    """One generator for each request of a batch, so that what is drawn for it depends on its seed alone.

    Numbers come from numpy's Philox on the CPU and are moved to where they are needed: a seed gives the same ones
    on every device, and they do not depend on how many are taken at once.

    seeds: whole numbers from 0 below 2^64, one for each request.
    """

    def __init__(self, seeds: Sequence[int], purpose: int = 0):
        self.seeds = tuple(seeds)
        keys = (seed + (purpose << _PURPOSE_BITS) for seed in self.seeds)
        self._sources = [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    def __len__(self) -> int:
        return len(self.seeds)

    def for_pixels(self) -> Generators:
        """Fresh generators of the same seeds, for what turns codes into pixels: how many numbers the codes have
        taken does not matter to it."""
        return Generators(self.seeds, PIXELS)

    def uniform(self, *shape: int, device: torch.device | str = "cpu") -> Float[Tensor, "n ..."]:
        """Numbers of [0, 1) for each request."""
        return self._stacked([source.random(shape, np.float32) for source in self._sources], device)

    def normal(self, *shape: int, device: torch.device | str = "cpu") -> Float[Tensor, "n ..."]:
        """Numbers of the standard normal distribution for each request."""
        return self._stacked([source.standard_normal(shape, np.float32) for source in self._sources], device)

    def state(self) -> State:
        """How far each source has been used, to go on from there."""
        return [source.bit_generator.state for source in self._sources]

    def restore(self, state: State) -> None:
        for source, each in zip(self._sources, state, strict=True):
            source.bit_generator.state = each  # type: ignore[assignment]

    def _stacked(self, numbers: Sequence[Any], device: torch.device | str) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(each) for each in numbers])).to(device)


def seeds_of(seed: int | Sequence[int], prompts: int, count: int = 1) -> list[int]:
    """The seeds of `count` images of each prompt: the prompt's own and those after it.

    seed: of every prompt, or one for each. Raises ChiasmError naming one that is out of range.
    """
    each = list(seed) if isinstance(seed, list | tuple | range) else [seed] * prompts
    if len(each) != prompts:
        raise ChiasmError.of(
            "seed", f"there are {len(each)} seeds for {prompts} prompts; give one, or one for each"
        )
    return [check_seed(first, count) + i for first in each for i in range(count)]


def check_seed(seed: Any, count: int = 1) -> int:
    """The seed, if it and the `count` - 1 behind it are seeds; raises ChiasmError."""
    last = SEEDS - count
    if not _is_whole(seed) or not 0 <= int(seed) <= last:
        raise ChiasmError.of("seed", f"it must be a whole number from 0 to {last}, not {quoted(seed)}")
    return int(seed)


def check_count(count: Any) -> int:
    """How many images are asked for; raises ChiasmError."""
    if not _is_whole(count) or not 1 <= int(count) <= MOST_IMAGES:
        raise ChiasmError.of(
            "count", f"it must be a whole number from 1 to {MOST_IMAGES}, not {quoted(count)}"
        )
    return int(count)


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)
