"""Hidden states at mask positions, handed to the mask head beside the images that they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.distribution.devices import fitting
from chiasm.encoders import Encoder
from chiasm.errors import DataError
from chiasm.heads.segmentation import MaskHead, MaskPrediction, Pyramid
from chiasm.nn.losses import Loss, added
from chiasm.sequence import PackedBatch, WrittenMasks


class MaskQuestions(NamedTuple):
    """What a mask head is handed of questions about images of one size.

    rows: which of the batch's questions they are.
    """

    rows: list[int]
    hidden: Float[Tensor, "n q d"]
    pyramid: Pyramid
    question: Float[Tensor, "n d"]


def mask_losses(
    head: MaskHead, hidden: Float[Tensor, "b t d"], pyramids: Sequence[Pyramid], masks: WrittenMasks
) -> dict[str, Loss]:
    """Losses by name of all masks of a batch."""
    losses: dict[str, Loss] = {}
    for questions in _questions(head, hidden, pyramids, masks):
        targets = [masks.targets[row] for row in questions.rows]
        losses = added(losses, head.losses(questions.hidden, questions.pyramid, questions.question, targets))
    terms = head.terms([len(target) for target in masks.targets])
    return {name: loss for name, loss in losses.items() if terms[name]}


def predicted_masks(
    head: MaskHead, hidden: Float[Tensor, "b t d"], pyramids: Sequence[Pyramid], masks: WrittenMasks
) -> list[MaskPrediction]:
    """What the head proposes for each question of a batch, as a batch of one."""
    predictions: dict[int, MaskPrediction] = {}
    for questions in _questions(head, hidden, pyramids, masks):
        proposed = head.predict(questions.hidden, questions.pyramid, questions.question)
        for i, row in enumerate(questions.rows):
            predictions[row] = MaskPrediction(proposed.masks[i : i + 1], proposed.scores[i : i + 1])
    return [predictions[row] for row in range(len(masks.starts))]


def _questions(
    head: MaskHead, hidden: Float[Tensor, "b t d"], pyramids: Sequence[Pyramid], masks: WrittenMasks
) -> Iterator[MaskQuestions]:
    """The questions of a batch, by the size of their images."""
    flat = hidden.flatten(0, 1)
    starts = masks.starts
    for group, pyramid in enumerate(pyramids):
        rows = [row for row, (own, _) in enumerate(masks.images) if own == group]
        if not rows:
            continue
        numbers = torch.tensor([masks.images[row][1] for row in rows], device=hidden.device)
        yield MaskQuestions(
            rows,
            torch.stack([flat[starts[row] : starts[row] + head.positions] for row in rows]),
            [level[numbers] for level in pyramid],
            torch.stack([flat[starts[row] - masks.questions[row] : starts[row]].mean(0) for row in rows]),
        )


def with_pyramids(encoder: Encoder | None, batch: PackedBatch) -> tuple[PackedBatch, list[Pyramid]]:
    """A batch that asks for masks with the features of its images, and all levels of those, by group.

    Without a graph when the encoder is frozen; any other batch is left as it is.
    """
    if batch.written.mask is None or batch.read is None:
        return batch, []
    if encoder is None or batch.read.encoded:
        raise DataError("masks are written of pixels, but the batch has features")
    learns = any(parameter.requires_grad for parameter in encoder.parameters())
    with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
        pyramids: list[Pyramid] = [encoder.pyramid(fitting(group, encoder)) for group in batch.read.groups]
    groups = [levels[-1] for levels in pyramids]
    return replace(batch, read=replace(batch.read, groups=groups, encoded=True)), pyramids
