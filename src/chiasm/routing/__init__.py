"""Which weights a token meets inside the language model.

A routing part attaches itself to modules of any language model by hooks, so that the language model's own
code and parameter names stay as they are. The kinds of the positions (text, image read, image written)
stand in a context that the model sets around each call.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from chiasm.errors import ChiasmError
from chiasm.losses import Loss
from chiasm.parts import Part

KindName = Literal["text", "read", "written"]
KINDS: tuple[KindName, ...] = ("text", "read", "written")  # in the order of `chiasm.sequence.Kind`


class Reading:
    """What stands at the positions that the language model is reading, and where each kind of it is.

    real: False at padding; None = there is none.
    """

    def __init__(self, kinds: Int[Tensor, "b t"], real: Bool[Tensor, "b t"] | None = None):
        self.kinds, self.real = kinds, real
        self._rows: dict[tuple[KindName, ...], Int[Tensor, " m"]] = {}
        self._parts: dict[tuple[tuple[KindName, ...], ...], tuple[list[Tensor], Tensor]] = {}

    def rows(self, *kinds: KindName) -> Int[Tensor, " m"]:
        """Flat positions of these kinds, in order."""
        if kinds not in self._rows:
            wanted = torch.tensor([KINDS.index(kind) for kind in kinds], device=self.kinds.device)
            self._rows[kinds] = torch.isin(self.kinds.flatten(), wanted).nonzero()[:, 0]
        return self._rows[kinds]

    def parts(
        self, groups: tuple[tuple[KindName, ...], ...]
    ) -> tuple[list[Int[Tensor, " m"]], Int[Tensor, " n"]]:
        """The flat positions of each group, and where each position went when the groups are joined."""
        if groups not in self._parts:
            rows = [self.rows(*group) for group in groups]
            self._parts[groups] = rows, torch.argsort(torch.cat(rows))
        return self._parts[groups]

    def flat(self, x: Tensor) -> Tensor:
        """`b t ...` or what a module made of it, with one axis for all positions."""
        if x.shape[:2] == self.kinds.shape:
            return x.flatten(0, 1)
        if x.shape[0] == self.kinds.numel():
            return x
        raise ChiasmError(
            f"a routed module was given {tuple(x.shape)}, which does not fit {tuple(self.kinds.shape)} positions"
        )


_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextmanager
def routed(kinds: Int[Tensor, "b t"], real: Bool[Tensor, "b t"] | None = None) -> Iterator[None]:
    """Within this context, `current_reading` tells a routing part what stands at each position.

    real: False at padding; None = there is none.
    """
    token = _reading.set(Reading(kinds, real))
    try:
        yield
    finally:
        _reading.reset(token)


def current_reading() -> Reading:
    """What the language model is reading now."""
    reading = _reading.get()
    assert reading is not None, "a routed module was called outside `routed(...)`"
    return reading


def current_kinds() -> Int[Tensor, "b t"]:
    """The kinds of the positions that the language model is reading now."""
    return current_reading().kinds


class Routing(Part, nn.Module, slot="routing"):
    """Interface. Built as `Routing(language, *, options)`; its own parameters are trained as `routing`.

    names: of its losses.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def losses(self) -> dict[str, Loss]:
        """In training: losses by name of what the language model has just read."""
        return {}

    def report(self) -> dict[str, Any]:
        """In use: what an evaluation shall tell of the routing since the last report; {} = nothing."""
        return {}

    @abstractmethod
    def merge(self) -> None:
        """Fold what can be folded into the language model's weights, for export; else do nothing."""
