"""Questions about images that are answered with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from chiasm.data.documents import document
from chiasm.data.references import ImageLike, References
from chiasm.data.sample import Masks, Message, Sample
from chiasm.errors import ChiasmError, DataError, excerpt
from chiasm.heads.segmentation import MaskPrediction
from chiasm.inference.reading import in_rows
from chiasm.model.masks import predicted_masks, with_pyramids
from chiasm.sequence import Document
from chiasm.views import Size, View

if TYPE_CHECKING:
    from chiasm.model import Model

TOGETHER = 16  # questions that are read at a time


@dataclass(frozen=True)
class Segmentation:
    """Masks that answer a question, the surest first, as large as its image.

    scores: of each, the chance that it is meant, 0 to 1.
    """

    masks: Bool[np.ndarray, "q h w"]
    scores: Float[np.ndarray, " q"]

    @property
    def marked(self) -> Bool[np.ndarray, "h w"]:
        """All that is meant: pixels of a mask whose score is above one half; none where there is no such mask."""
        return np.logical_or.reduce(self.masks[self.scores > 0.5], axis=0)


class _Unknown(Masks):
    """Masks that a model shall say."""

    count = 0

    def open(self) -> Bool[np.ndarray, "0 1 1"]:
        return np.zeros((0, 1, 1), dtype=bool)


def segment(model: Model, image: ImageLike, question: str) -> Segmentation:
    """What a question asks for, marked in an image: a PIL object, bytes or a path.

    Raises ChiasmError for a model without a mask head, and DataError for an image that cannot be read.
    """
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"the question is {excerpt(question)}; it must be text")
    picture = References().picture(image, "the question")
    sample = Sample("the question", (Message("user", (picture, question)),), masks=_Unknown())
    return segment_all(model, [sample])[0]


@torch.inference_mode()
def segment_all(model: Model, samples: Sequence[Sample]) -> list[Segmentation]:
    """What each sample asks for, whose own masks are not looked at."""
    head = model.mask_head
    if head is None:
        raise ChiasmError("this model writes no masks; give its recipe a head for them, heads: {mask: ...}")
    results: list[Segmentation] = []
    for start in range(0, len(samples), TOGETHER):
        some = [
            Sample(each.name, each.messages, masks=_Unknown()) for each in samples[start : start + TOGETHER]
        ]
        documents = [document(model.contract, each) for each in some]
        batch, pyramids = with_pyramids(model.encoder, in_rows(model, documents))
        embeddings, layout, _ = model.embed(batch)
        assert batch.written.mask is not None
        proposed = predicted_masks(head, model.language(embeddings, layout), pyramids, batch.written.mask)
        results += [_of_image(model, *pair) for pair in zip(documents, proposed, strict=True)]
    return results


def _of_image(model: Model, question_document: Document, proposed: MaskPrediction) -> Segmentation:
    picture = question_document.slots[-1].picture
    (view, _), *_ = model.contract.read_views(picture.size, f"image {picture.key}")
    order = proposed.scores[0].argsort(descending=True)
    masks = _placed(proposed.masks[0][order].float(), view, picture.size) > 0
    return Segmentation(masks.cpu().numpy(), proposed.scores[0][order].float().sigmoid().cpu().numpy())


def _placed(logits: Float[Tensor, "q h w"], view: View, size: Size) -> Float[Tensor, "q h2 w2"]:
    """Logits of a view where its image is; what the view does not show is outside of every mask."""
    left, top, right, bottom = view.box
    x = (torch.arange(size.width, device=logits.device) + 0.5 - left) / (right - left) * 2 - 1
    y = (torch.arange(size.height, device=logits.device) + 0.5 - top) / (bottom - top) * 2 - 1
    places = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)
    sampled = functional.grid_sample(
        logits[None], places[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]
    return sampled.masked_fill((places.abs() > 1).any(-1), -torch.inf)
