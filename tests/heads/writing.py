"""Heads that write, each ask answered by a stand-in for the language model."""

from collections.abc import Callable

import torch
from torch import nn

from chiasm.heads import Ask, DrawingState, HeadContext, Order, Sampling, finish
from chiasm.heads.building import build_head
from chiasm.nn.generators import Generators
from chiasm.tokenizers.spaces import Codes


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


class Vocabulary(nn.Module):
    """A language model of 12 ids whose hidden states are the logits, for a head alone."""

    vocabulary_size = 12

    def __init__(self, width: int = 4):
        super().__init__()
        self.table = nn.Embedding(12, width)

    def embed(self, ids):
        return self.table(ids)

    def logits(self, hidden):
        return hidden

    def grow(self, count):
        return 12 - count


def head(spec, width, size, grid, *, vocabulary=None, refinement=None, end=None) -> Order:
    """A head for codes of this size and grid."""
    space = Codes(grid, size, end=end)
    return build_head(spec, HeadContext(width, space, vocabulary or Vocabulary(width), refinement))
