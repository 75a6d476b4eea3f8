"""Which weights a token meets inside the language model.

A routing part attaches itself to modules of any language model by hooks, so that the language model's own
code and parameter names stay as they are. The kinds of the positions (text, image read, image written)
stand in a context that the model sets around each call.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from jaxtyping import Int
from torch import Tensor, nn

from chiasm.parts import Part

_kinds: ContextVar[Int[Tensor, "b t"] | None] = ContextVar("kinds", default=None)


@contextmanager
def routed(kinds: Int[Tensor, "b t"]) -> Iterator[None]:
    """Within this context, `current_kinds` tells a routing part what stands at each position."""
    token = _kinds.set(kinds)
    try:
        yield
    finally:
        _kinds.reset(token)


def current_kinds() -> Int[Tensor, "b t"]:
    """The kinds of the positions that the language model is reading now."""
    kinds = _kinds.get()
    assert kinds is not None, "a routed module was called outside `routed(...)`"
    return kinds


class Routing(Part, nn.Module, slot="routing"):
    """Interface. Built as `Routing(language, *, options)`; its own parameters are trained as `routing`."""

    @abstractmethod
    def merge(self) -> None:
        """Fold what can be folded into the language model's weights, for export; else do nothing."""
