"""Feed-forward networks of their own for images."""

from __future__ import annotations

from torch import nn

from chiasm.routing import Routing
from chiasm.routing.blocks import feed_forwards
from chiasm.routing.by_kind import attach, groups_of
from chiasm.sequence.kinds import KindName


class Multiway(Routing, name="multiway"):
    """BEiT-3's multiway transformer in a causal language model (arXiv 2208.10442).

    Words and image tokens share attention, and meet a feed-forward network of their own, in every layer. Those
    of image tokens begin as copies. (BEiT-3 itself, where projections and norms are double as well, is the
    language model 'beit3'; in a causal one that is 'mixture_of_transformers'.)

    Args:
        kinds: groups of kinds of image tokens ('read', 'written'), each with networks of its own.
    """

    def __init__(
        self,
        language: nn.Module,
        *,
        kinds: list[list[KindName]] = [["read", "written"]],  # noqa: B006 (never changed)
    ):
        super().__init__()
        self.layers = attach(feed_forwards(language, self.name), groups_of(kinds, self.name))

    def merge(self) -> None:
        """Nothing: what only some tokens meet cannot be added to the weights of all."""
