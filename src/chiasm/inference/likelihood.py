"""How likely a model finds an answer that is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.data.documents import document
from chiasm.data.sample import Sample
from chiasm.inference.reading import in_rows
from chiasm.sequence import IGNORE, Document

if TYPE_CHECKING:
    from chiasm.model import Model

ROWS = 8  # samples of one pass


def answer_losses(model: Model, samples: Sequence[Sample]) -> Float[Tensor, " n"]:
    """Mean cross-entropy of the tokens that each sample's learnt answers are made of, their end included.

    Its exponential is the perplexity. Raises DataError for a sample longer than the context.
    """
    losses = [torch.zeros(0, device=model.device)]
    for start in range(0, len(samples), ROWS):
        documents = [document(model.contract, sample) for sample in samples[start : start + ROWS]]
        losses.append(_document_losses(model, documents))
    return torch.cat(losses)


@torch.inference_mode()
def _document_losses(model: Model, documents: Sequence[Document]) -> Float[Tensor, " n"]:
    batch = in_rows(model, documents)
    embeddings, layout, _ = model.embed(batch)
    hidden = model.language(embeddings, layout)
    return mean_losses(model.language.logits(hidden[batch.labels != IGNORE]), batch.labels)


def mean_losses(logits: Float[Tensor, "m v"], labels: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Of each row, the mean over its m labels; `logits` are those that predict a label, row by row."""
    learnt = labels != IGNORE
    losses = functional.cross_entropy(logits.float(), labels[learnt], reduction="none")
    sums = losses.new_zeros(len(labels)).index_add(0, learnt.nonzero()[:, 0], losses)
    return sums / learnt.sum(1)
