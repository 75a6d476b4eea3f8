"""The one attention rule, written out.

With `block = cumsum(opens)`, a query may look at a key iff they are of one document, `block[key] <= block[query]`,
and (`exposed[key]` or `block[key] == block[query]`). So, within one document,

    opens 1 1 1 1    exposed 1 1 1 1    each position sees those before it: causal text
    opens 1 0 0 1    exposed 1 1 1 1    the first three see each other, the last sees all: a prefix-LM, an image
    opens 1 1 0 1    exposed 1 0 0 1    the second and third see the first and each other, and the last sees neither
                                        of them: a private block
    opens 1 1 0 0 1  exposed 1 1 1 1 1  blocks that see themselves and those before: next-scale prediction
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

HIDDEN = -1e10  # far below any score, and a number still: no softmax is empty


def allowed(
    documents: Int[Tensor, "b t"],
    blocks: Int[Tensor, "b t"],
    exposed: Bool[Tensor, "b t"],
    queries: int | None = None,
) -> Bool[Tensor, "b q t"]:
    """Which key each query may look at; the definition that every kernel must equal.

    documents: negative = padding, at which nothing looks. queries: how many of the last positions; None = all.
    """
    first = 0 if queries is None else documents.shape[1] - queries
    query = (documents[:, first:, None], blocks[:, first:, None])
    key = (documents[:, None], blocks[:, None])
    same_document = (query[0] == key[0]) & (key[0] >= 0)
    return same_document & (key[1] <= query[1]) & (exposed[:, None] | (key[1] == query[1]))


def with_themselves(allowed: Bool[Tensor, "b q t"]) -> Bool[Tensor, "b 1 q t"]:
    """The mask of a kernel: padding queries look at themselves, so that no softmax is empty."""
    first = allowed.shape[2] - allowed.shape[1]
    itself = torch.eye(allowed.shape[2], dtype=torch.bool, device=allowed.device)[first:]
    return (allowed | itself)[:, None]


def hiding(unseen: Bool[Tensor, "*s"], dtype: torch.dtype) -> Float[Tensor, "*s"]:
    """What is added to the scores of attention to hide keys; a query that sees none sees all of them alike."""
    return unseen.to(dtype) * max(HIDDEN, torch.finfo(dtype).min)
