"""Heads that write, each ask answered by a stand-in for the language model."""

from collections.abc import Callable

import torch

from chiasm.generators import Generators
from chiasm.heads import Ask, DrawingState, Sampling, finish


def written(head, read: Callable[[Ask], torch.Tensor], generators=None, progress=None, **sampling):
    """What the head draws; read: has `start`, and is given the asks."""
    sampling = Sampling(**{"temperature": 0, **sampling})
    with torch.no_grad():
        return finish(head.write(read.start, sampling, generators, progress), read)


class Recorded(DrawingState):
    """Progress that remembers all that was noted, and stops the drawing behind a step."""

    def __init__(self, seeds, stop: int | None = None):
        self.generators, self.history, self.stop = Generators(seeds), [], stop
        super().__init__(self.generators)

    def note(self, values, steps):
        super().note(values, steps)
        self.history.append(values)
        if steps == self.stop:
            raise KeyboardInterrupt
