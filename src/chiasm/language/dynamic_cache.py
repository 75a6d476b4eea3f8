"""transformers' key-value caches: those of several calls joined, and rows of one selected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from chiasm.errors import ChiasmError
from chiasm.language.key_values import stacked


def join(empty: DynamicCache, caches: Sequence[DynamicCache]) -> DynamicCache:
    """The rows of all caches in an empty one; shorter caches are padded in front."""
    return _filled(empty, caches, lambda parts: stacked(parts, axis=0))


def select(
    empty: DynamicCache, cache: DynamicCache, rows: Int[Tensor, " r"], columns: slice | Int[Tensor, " s"]
) -> DynamicCache:
    """Some positions of some rows of a cache, in an empty one."""
    return _filled(empty, [cache], lambda parts: parts[0][:, :, columns][rows])


def _filled(
    empty: DynamicCache, caches: Sequence[DynamicCache], combine: Callable[[list[Tensor]], Tensor]
) -> DynamicCache:
    for layer, *parts in zip(empty.layers, *(cache.layers for cache in caches), strict=True):
        if any(_is_used(part) for part in parts):  # else it shares the keys of another layer
            layer.update(combine([part.keys for part in parts]), combine([part.values for part in parts]))
    return empty


def _is_used(layer: Any) -> bool:
    """Whether a layer of a cache has keys; raises ChiasmError where it holds anything else, or not all of them."""
    if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
        raise ChiasmError(
            f"a cache's {type(layer).__name__} is no list of keys and values: its rows cannot be joined or selected"
        )
    if layer.is_initialized and layer.get_seq_length() > layer.keys.shape[-2]:
        raise ChiasmError(
            f"a cache of {layer.get_seq_length()} positions has reached its sliding window and holds only "
            f"{layer.keys.shape[-2]} of them: its rows cannot be joined or selected"
        )
    return layer.is_initialized
