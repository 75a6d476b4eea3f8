"""What the language model must know of its positions besides their embeddings, in one object that is handed down.

The attention rule (`sequence/rule.py`) is symbolic in it until a kernel (`sequence/attention.py`) needs a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from chiasm.errors import ChiasmError
from chiasm.sequence.cross_attended import CrossAttended
from chiasm.sequence.grouping import Group, Moves, grouped
from chiasm.sequence.kinds import Places
from chiasm.sequence.rule import allowed, with_themselves

AXES = 3  # of coordinates
ALL = slice(None)
# The columns of a layout, and what stands in them where nothing stands.
PADDINGS = {"documents": -1, "opens": True, "exposed": True, "kinds": 0, "positions": 0, "coordinates": 0}


@dataclass(frozen=True, eq=False)
class Layout:
    """b rows of t positions: all so far, of which the last may be queries and the others stand in a cache.

    Args:
        documents: which of its row a position belongs to, counted upwards; negative = nothing stands there.
        opens: the position begins a block of the attention rule (`chiasm.sequence.rule`).
        exposed: later blocks of the document see the position.
        kinds: what stands there, see `chiasm.sequence.Kind`; text where not given.
        positions: how far into its document each is; counted where not given.
        coordinates: of a position in an image that is written: how many positions of the image stand before it, its
            row and its column; 0 elsewhere.
        cross_attended: images that stand outside the sequence, and which of them each query sees.
        queries: how many of the last positions are queries (None: all of them); fewer with a key-value cache.
        clear: known to hide nothing, so that no kernel need look.
    """

    documents: Int[Tensor, "b t"]
    opens: Bool[Tensor, "b t"]
    exposed: Bool[Tensor, "b t"]
    kinds: Int[Tensor, "b t"] = field(default=None, kw_only=True)  # type: ignore[assignment]
    positions: Int[Tensor, "b t"] = field(default=None, kw_only=True)  # type: ignore[assignment]
    coordinates: Int[Tensor, "b t 3"] = field(default=None, kw_only=True)  # type: ignore[assignment]
    cross_attended: CrossAttended | None = field(default=None, kw_only=True)
    queries: int | None = field(default=None, kw_only=True)
    clear: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.kinds is None:
            object.__setattr__(self, "kinds", torch.zeros_like(self.documents))
        if self.positions is None:
            object.__setattr__(self, "positions", self.counted(self.documents >= 0))
        if self.coordinates is None:
            nowhere = self.documents.new_zeros(()).expand(*self.documents.shape, AXES)
            object.__setattr__(self, "coordinates", nowhere)

    @staticmethod
    def causal(rows: int, length: int, device: torch.device | str = "cpu", **columns: Any) -> Layout:
        """One causal document a row; columns: those with a default."""
        ones = torch.ones(rows, length, dtype=torch.bool, device=device)
        documents = torch.zeros(rows, length, dtype=torch.long, device=device)
        columns.setdefault("positions", torch.arange(length, device=device).expand(rows, -1))
        return Layout(documents, ones, ones, **columns)

    @staticmethod
    def join(layouts: Sequence[Layout]) -> Layout:
        """The rows of all, each one document, padded in front to the length of the longest; to be extended."""
        longest = max(layout.documents.shape[1] for layout in layouts)
        columns: dict[str, Any] = {
            name: torch.cat([_padded(getattr(layout, name), longest, padding) for layout in layouts])
            for name, padding in PADDINGS.items()
        }
        rows = [len(layout.documents) for layout in layouts]
        images = CrossAttended.join([layout.cross_attended for layout in layouts], rows)
        return Layout(**columns, cross_attended=images)

    def select(self, rows: Int[Tensor, " r"], *, columns: slice | Int[Tensor, " s"] = ALL) -> Layout:
        """Some rows, each one document, in this order and each as often as it is named; to be extended.

        columns: which of their positions.
        """
        selected: dict[str, Any] = {name: getattr(self, name)[:, columns][rows] for name in PADDINGS}
        images = None if self.cross_attended is None else self.cross_attended.select(rows)
        return Layout(**selected, cross_attended=images)

    def extended(self, other: Layout, *, clear: bool = False) -> Layout:
        """This layout followed by `other`, whose positions are the queries; `clear`: they see all of both."""
        columns: dict[str, Any] = {
            name: torch.cat([getattr(self, name), getattr(other, name)], 1) for name in PADDINGS
        }
        count = other.documents.shape[1]
        images = self.cross_attended
        return Layout(
            **columns,
            cross_attended=None if images is None else images.continued(count),
            queries=count,
            clear=clear,
        )

    def of_queries(self, column: Int[Tensor, "b t ..."]) -> Int[Tensor, "b q ..."]:
        """The part of a column that is of the queries."""
        return column if self.queries is None else column[:, column.shape[1] - self.queries :]

    def counted(self, marked: Bool[Tensor, "b t"]) -> Int[Tensor, "b t"]:
        """How many marked positions of the same document stand before each, which padding may divide."""
        before = marked.cumsum(1) - marked.long()
        return before - torch.where(self._begins, before, 0).cummax(1).values

    @property
    def _begins(self) -> Bool[Tensor, "b t"]:
        """Where a document begins, or the padding in front of the first."""
        begins = torch.ones_like(self.documents, dtype=torch.bool)
        begins[:, 1:] = self.documents[:, 1:] > self.documents.cummax(1).values[:, :-1]
        return begins

    @property
    def padded(self) -> int:
        """How many positions at the front hold nothing in any row."""
        return leading_padding(self.documents)

    @cached_property
    def by_kind(self) -> Places:
        """Where queries of each kind stand."""
        return Places(self.of_queries(self.kinds))

    @cached_property
    def filled(self) -> Int[Tensor, " m"]:
        """Flat places of the queries that are no padding."""
        return (self.of_queries(self.documents) >= 0).flatten().nonzero()[:, 0]

    @cached_property
    def blocks(self) -> Int[Tensor, "b t"]:
        return self.opens.long().cumsum(1)

    @cached_property
    def first_block(self) -> Bool[Tensor, "b t"]:
        """The positions of each document's first block: what an encoder reads, where there is one."""
        first = torch.where(self._begins, self.blocks, 0).cummax(1).values
        return (self.documents >= 0) & (self.blocks == first)

    @cached_property
    def allowed(self) -> Bool[Tensor, "b q t"]:
        """The rule written out; the definition that every kernel must equal."""
        return allowed(self.documents, self.blocks, self.exposed, self.queries)

    @cached_property
    def groups(self) -> list[Group]:
        """Documents of like length, gathered from all rows, for one call each."""
        return grouped(self.documents, self.opens, self.exposed)

    @cached_property
    def gather(self) -> Moves:
        """From all positions, row after row, to those of the groups."""
        return Moves(torch.cat([torch.where(group.real, group.index, -1).flatten() for group in self.groups]))

    @cached_property
    def scatter(self) -> Moves:
        """From the positions of the groups to all positions; nothing comes to padding."""
        there = torch.full_like(self.documents, -1).flatten()
        real = self.gather.index >= 0
        there[self.gather.index[real]] = real.nonzero()[:, 0]
        return Moves(there)

    @cached_property
    def dense_mask(self) -> Bool[Tensor, "b 1 q t"]:
        """`allowed`, with padding queries looking at themselves so that no softmax is empty."""
        return with_themselves(self.allowed)

    @cached_property
    def mask(self) -> Bool[Tensor, "b 1 q t"] | None:
        """`dense_mask`, or None when it hides nothing: kernels are quicker without, and differ in the last bit."""
        return None if self.clear or bool(self.dense_mask.all()) else self.dense_mask

    @cached_property
    def block_mask(self) -> Any:
        """FlexAttention's form of the rule."""
        from torch.nn.attention.flex_attention import create_block_mask

        documents, blocks, exposed = self.documents, self.blocks, self.exposed

        def rule(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            same_document = (documents[b, q] == documents[b, k]) & (documents[b, k] >= 0)
            seen = exposed[b, k] | (blocks[b, k] == blocks[b, q])
            return same_document & (blocks[b, k] <= blocks[b, q]) & seen

        rows, length = documents.shape
        return create_block_mask(rule, rows, None, length, length, device=documents.device)

    def longest(self) -> int:
        """Length of the longest document, in positions."""
        return max((int(group.lengths.max()) for group in self.groups), default=0)


def leading_padding(documents: Int[Tensor, "b t"]) -> int:
    """How many positions at the front hold nothing in any row."""
    return int((documents < 0).all(0).long().cumprod(0).sum())


def _padded(column: Int[Tensor, "b t ..."], length: int, padding: int | bool) -> Int[Tensor, "b length ..."]:
    front = column.new_full((column.shape[0], length - column.shape[1], *column.shape[2:]), padding)
    return torch.cat([front, column], 1)


_current: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def attending(layout: Layout) -> Iterator[None]:
    """Within this context, modules that are handed nothing but hidden states find the layout.

    `Language` alone sets it, around each call: for models of transformers that hand no keyword arguments down, and
    for the routing's modules inside them.
    """
    token = _current.set(layout)
    try:
        yield
    finally:
        _current.reset(token)


def current_layout() -> Layout:
    """The layout of what the language model is reading now; raises ChiasmError where it reads nothing."""
    layout = _current.get()
    if layout is None:
        raise ChiasmError("a module was called without a layout, outside of a language model")
    return layout
