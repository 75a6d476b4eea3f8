"""What learns without gradients, once a step of the optimiser, from all that it met since the last one.

A codebook that followed its encoder in every forward pass would count micro-batches where it should count steps,
and accumulating 2 x 4 would teach it something else than 1 x 8. So a forward pass only takes notes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import nn


class Stepwise(nn.Module):
    """Interface of a module that takes notes in its forward passes, in training mode, and learns from them later.

    Whoever trains it calls `after_step` behind every step of the optimiser, and `forget` behind one that was
    skipped; else notes pile up. All ranks must call them equally often.
    """

    @abstractmethod
    def after_step(self) -> None:
        """Learn from the notes, and forget them."""

    @abstractmethod
    def forget(self) -> None:
        """Drop the notes."""


def after_step(module: nn.Module) -> None:
    """Let all that is inside a module, and learns once a step, do so."""
    for each in _stepwise(module):
        each.after_step()


def forget(module: nn.Module) -> None:
    """Drop the notes of all that is inside a module."""
    for each in _stepwise(module):
        each.forget()


def _stepwise(module: nn.Module) -> Iterator[Stepwise]:
    return (each for each in module.modules() if isinstance(each, Stepwise))
