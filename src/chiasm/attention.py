"""The one attention rule, symbolic until a kernel needs it, plugged into transformers.

`Layout` is the rule. On CPU it becomes one scaled-dot-product call for each group of documents of like
length; on CUDA a FlexAttention block mask. While a key-value cache is in use it is a small dense mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from chiasm.errors import ChiasmError

NAME = "chiasm"  # of the attention implementation in transformers' registry

_current: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def attending(layout: Layout) -> Iterator[None]:
    """Within this context, models that do not hand keyword arguments down to their attention find the layout."""
    token = _current.set(layout)
    try:
        yield
    finally:
        _current.reset(token)


@dataclass(frozen=True, eq=False)
class Layout:
    """Which position may look at which, over all keys so far.

    queries: how many of the last positions are queries (None: all of them); fewer with a key-value cache.
    clear: known to hide nothing, so that no kernel need look.
    """

    documents: Int[Tensor, "b t"]
    opens: Bool[Tensor, "b t"]
    exposed: Bool[Tensor, "b t"]
    queries: int | None = None
    clear: bool = False

    @staticmethod
    def causal(rows: int, length: int, device: torch.device | str = "cpu") -> Layout:
        """One causal document a row."""
        ones = torch.ones(rows, length, dtype=torch.bool, device=device)
        return Layout(torch.zeros(rows, length, dtype=torch.long, device=device), ones, ones)

    @cached_property
    def blocks(self) -> Int[Tensor, "b t"]:
        return self.opens.long().cumsum(1)

    @cached_property
    def allowed(self) -> Bool[Tensor, "b q t"]:
        """The rule written out; the definition that every kernel must equal."""
        first = self.documents.shape[1] - (self.queries or self.documents.shape[1])
        query = (self.documents[:, first:, None], self.blocks[:, first:, None])
        key = (self.documents[:, None], self.blocks[:, None])
        same_document = (query[0] == key[0]) & (key[0] >= 0)
        return same_document & (key[1] <= query[1]) & (self.exposed[:, None] | (key[1] == query[1]))

    def extended(self, other: Layout, *, clear: bool = False) -> Layout:
        """This layout followed by `other`, whose positions are the queries; `clear`: they see all of both."""
        return Layout(
            torch.cat([self.documents, other.documents], 1),
            torch.cat([self.opens, other.opens], 1),
            torch.cat([self.exposed, other.exposed], 1),
            queries=other.documents.shape[1],
            clear=clear,
        )

    @cached_property
    def groups(self) -> list[Group]:
        """Documents of like length, gathered from all rows, for one call each."""
        return _groups(self)

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
        allowed = self.allowed
        first = allowed.shape[2] - allowed.shape[1]
        itself = torch.eye(allowed.shape[2], dtype=torch.bool, device=allowed.device)[first:]
        return (allowed | itself)[:, None]

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

    @cached_property
    def places(self) -> Int[Tensor, "b t"]:
        """Where each position stands in its row, padding not counted: within a document, how far on it is."""
        return (self.documents >= 0).long().cumsum(1)

    def longest(self) -> int:
        """Length of the longest document, in positions."""
        return max((int(group.lengths.max()) for group in self.groups), default=0)


@dataclass(frozen=True, eq=False)
class Group:
    """n documents of at most m positions.

    index: flat positions of each document, its end padded with its own first position.
    real: False at that padding.
    mask: None when all are causal (padding stands at the end, where no causal query looks).
    """

    index: Int[Tensor, "n m"]
    real: Bool[Tensor, "n m"]
    lengths: Int[Tensor, " n"]
    mask: Bool[Tensor, "n 1 m m"] | None

    def leaning(self, slopes: Float[Tensor, " h"]) -> Float[Tensor, "n h m m"]:
        """The mask with ALiBi's bias where it is open."""
        places = torch.arange(self.index.shape[1], device=slopes.device)[None]
        mask = (places[:, None] <= places[:, :, None])[:, None] if self.mask is None else self.mask
        return _leaning(mask, places, places, slopes)


@dataclass(frozen=True, eq=False)
class Moves:
    """index: which row comes to each place; -1 = none."""

    index: Int[Tensor, " m"]

    @cached_property
    def _taken(self) -> Int[Tensor, " m"]:
        return self.index.clamp(min=0)

    @cached_property
    def _empty(self) -> Int[Tensor, " e"]:
        return (self.index < 0).nonzero()[:, 0]

    def rows(self, table: Float[Tensor, "n h e"]) -> Float[Tensor, "m h e"]:
        return table.index_select(0, self._taken).index_fill_(0, self._empty, 0)


def _groups(layout: Layout) -> list[Group]:
    rows, length = layout.documents.shape
    # A row of `length` positions holds at most as many documents: so each has an id of its own among all rows.
    row_offset = torch.arange(rows, device=layout.documents.device)[:, None] * length
    ids = torch.where(layout.documents >= 0, layout.documents + row_offset, -1).flatten()
    order = torch.argsort(ids, stable=True)
    order = order[int((ids < 0).sum()) :]
    _, counts = torch.unique_consecutive(ids[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    causal_position = (layout.opens & layout.exposed).flatten()
    buckets: dict[tuple[int, bool], list[int]] = {}
    sums = F.pad(causal_position[order].long().cumsum(0), (1, 0))
    causal = (sums[starts + counts] - sums[starts] == counts).tolist()
    for document, (count, is_causal) in enumerate(zip(counts.tolist(), causal, strict=True)):
        buckets.setdefault((_bucket(count), is_causal), []).append(document)
    groups = []
    for (_, is_causal), members in sorted(buckets.items()):
        chosen = torch.tensor(members, device=order.device)
        lengths = counts[chosen]
        steps = torch.arange(int(lengths.max()), device=order.device)
        real = steps < lengths[:, None]
        index = order[starts[chosen][:, None] + torch.where(real, steps, 0)]
        groups.append(Group(index, real, lengths, None if is_causal else _mask(layout, index, real)))
    return groups


def _bucket(length: int) -> int:
    """Lengths that share a call: within an eighth of each other, so that little of it is padding."""
    step = 1 << max(2, length.bit_length() - 4)
    return -(-length // step) * step


def _mask(layout: Layout, index: Int[Tensor, "n m"], real: Bool[Tensor, "n m"]) -> Bool[Tensor, "n 1 m m"]:
    documents = (~real).long()  # the padding is a document of its own, whose answer nobody reads
    opens = layout.opens.flatten()[index]
    exposed = layout.exposed.flatten()[index]
    return Layout(documents, opens, exposed).dense_mask


def by_document(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b g t e"],
    value: Float[Tensor, "b g t e"],
    layout: Layout,
    scale: float | None = None,
    slopes: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b t h e"]:
    """Attention as one call for each group of documents of like length; padding comes out as zero."""
    if not layout.groups:
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
    # On CPU the kernel's backward is slower in bf16 than in fp32, twice so for short documents.
    rows = [tensor.transpose(1, 2).flatten(0, 1).float() for tensor in (query, key, value)]
    gathered = [_Moved.apply(tensor, layout.gather, layout.scatter) for tensor in rows]
    sizes = [group.index.numel() for group in layout.groups]
    answers = []
    for group, *parts in zip(layout.groups, *(tensor.split(sizes) for tensor in gathered), strict=True):
        q, k, v = (part.unflatten(0, group.index.shape).transpose(1, 2) for part in parts)
        mask = group.mask if slopes is None else group.leaning(slopes)
        with torch.autocast(q.device.type, enabled=False):  # which would take it back to bf16
            answer = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=q.shape[1] != k.shape[1],
            )
        answers.append(answer.transpose(1, 2).flatten(0, 1))
    out = _Moved.apply(torch.cat(answers).to(query.dtype), layout.scatter, layout.gather)
    return out.view(query.shape[0], query.shape[2], *out.shape[1:])


class _Moved(torch.autograd.Function):
    """`table[there]`, zero where that is -1. `back` is the inverse: so the gradient is a gather as well,
    instead of a sum into zeros."""

    @staticmethod
    def forward(ctx: Any, table: Float[Tensor, "n h e"], there: Moves, back: Moves) -> Float[Tensor, "m h e"]:
        ctx.there, ctx.back = there, back
        return there.rows(table)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "m h e"]) -> tuple[Float[Tensor, "n h e"], None, None]:
        return ctx.back.rows(gradient), None, None


def dense(
    query: Float[Tensor, "b h q e"],
    key: Float[Tensor, "b g t e"],
    value: Float[Tensor, "b g t e"],
    layout: Layout,
    scale: float | None = None,
    slopes: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b q h e"]:
    """Attention with the rule written out as a mask: for key-value caches, and as the reference."""
    mask = layout.mask
    if slopes is not None:
        own = layout.places[:, -query.shape[2] :]
        mask = _leaning(layout.dense_mask, own, layout.places, slopes).to(query.dtype)
    answer = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return answer.transpose(1, 2)


def _leaning(
    mask: Bool[Tensor, "b 1 q t"],
    queries: Int[Tensor, "b q"],
    keys: Int[Tensor, "b t"],
    slopes: Float[Tensor, " h"],
) -> Float[Tensor, "b h q t"]:
    """ALiBi's bias, `slope * (key - query)` in each head, where the mask is open."""
    distance = (keys[:, None] - queries[:, :, None])[:, None]
    return (distance * slopes.float()[:, None, None]).masked_fill(~mask, float("-inf"))


def flex(
    query: Float[Tensor, "b h t e"],
    key: Float[Tensor, "b g t e"],
    value: Float[Tensor, "b g t e"],
    layout: Layout,
    scale: float | None = None,
    slopes: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b t h e"]:
    """FlexAttention, for CUDA."""
    kernel, places = _flex_kernel(query.device.type), layout.places

    def lean(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        assert slopes is not None
        return score + slopes[h] * (places[b, k] - places[b, q])

    answer = kernel(
        query,
        key,
        value,
        score_mod=None if slopes is None else lean,
        block_mask=layout.block_mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return answer.transpose(1, 2)


@cache
def _flex_kernel(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


def attend(
    module: nn.Module,
    query: Float[Tensor, "b h q e"],
    key: Float[Tensor, "b g t e"],
    value: Float[Tensor, "b g t e"],
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    slopes: Float[Tensor, " h"] | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "b q h e"], None]:
    """transformers' attention interface. Raises ChiasmError for a mechanism that the rule does not cover.

    slopes: of each head's bias by distance (ALiBi, arXiv 2108.12409).
    """
    layout = layout or _current.get()
    if layout is None:
        raise ChiasmError(f"{type(module).__name__} was called without a layout")
    _refuse_unknown(module, kwargs)
    if layout.queries is not None:
        kernel = dense
        span = layout.documents.shape[1]
    else:
        kernel = flex if query.device.type == "cuda" else by_document
        span = layout.documents.shape[1] if sliding_window is None else layout.longest()
    if sliding_window is not None and span > sliding_window:
        raise ChiasmError(
            f"a document of {span} positions exceeds the sliding window of {sliding_window} of "
            f"{type(module).__name__}; shorten the documents"
        )
    return kernel(query, key, value, layout, scaling, slopes), None


def _refuse_unknown(module: nn.Module, kwargs: dict[str, Any]) -> None:
    for mechanism in ("softcap", "s_aux"):
        if kwargs.get(mechanism) is not None:
            raise ChiasmError(
                f"{type(module).__name__} needs {mechanism!r} in its attention, which is not supported"
            )


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
