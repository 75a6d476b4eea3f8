"""What is taken over a whole batch, and so no sum over its terms: it says where a batch may not be shared out."""

from __future__ import annotations

from abc import abstractmethod

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Indivisible(nn.Module):
    """Interface of a module that computes something of all of a batch at once."""

    @abstractmethod
    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        """Why, in training, a step may not be shared out into batches of `rows` rows; None = it may.

        ranks: among processes; else among micro-batches, one after another. The reason follows "but".
        """


def reasons(module: nn.Module, *, ranks: bool, rows: int) -> list[str]:
    """Of all that is inside a module and in training mode, with the reason why a step may not be shared out."""
    result = []
    for name, each in module.named_modules():
        if not each.training:
            continue
        reason = each.indivisible(ranks=ranks, rows=rows) if isinstance(each, Indivisible) else None
        if isinstance(each, _BatchNorm):
            reason = f"{name} ({type(each).__name__}) normalises each batch by its own statistics; freeze it"
        if reason is not None:
            result.append(reason)
    return result
