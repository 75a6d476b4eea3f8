"""Kernels of the one attention rule (`chiasm.sequence.rule`), plugged into transformers.

On CPU the rule becomes one scaled-dot-product call for each group of documents of like length; on CUDA a
FlexAttention block mask. While a key-value cache is in use it is a small dense mask.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from chiasm.errors import ChiasmError
from chiasm.sequence.grouping import Group, Moves
from chiasm.sequence.layout import Layout, current_layout

NAME = "chiasm"  # of the attention implementation in transformers' registry


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
        mask = group.mask if slopes is None else _leaning_group(group, slopes)
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
        own = layout.of_queries(layout.positions)
        mask = _leaning(layout.dense_mask, own, layout.positions, slopes).to(query.dtype)
    answer = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return answer.transpose(1, 2)


def _leaning_group(group: Group, slopes: Float[Tensor, " h"]) -> Float[Tensor, "n h m m"]:
    steps = torch.arange(group.index.shape[1], device=slopes.device)[None]
    mask = (steps[:, None] <= steps[:, :, None])[:, None] if group.mask is None else group.mask
    return _leaning(mask, steps, steps, slopes)


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
    kernel, positions = _flex_kernel(query.device.type), layout.positions

    def lean(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        assert slopes is not None
        return score + slopes[h] * (positions[b, k] - positions[b, q])

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
    layout = layout or current_layout()
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
