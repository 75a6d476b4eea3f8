"""Hidden states at image positions, or at the words before an image, handed to the image head."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.heads import Order, Span
from chiasm.nn.losses import Loss
from chiasm.sequence import WrittenImages
from chiasm.tokenizers.spaces import Space, WordIds


def image_losses(
    head: Order, hidden: Float[Tensor, "b t d"], span: Span, images: WrittenImages, ids: Int[Tensor, "b t"]
) -> dict[str, Loss]:
    """Losses by name of all images of a batch, which became `span`. ids: of the batch."""
    if images.words is not None:
        span = span._replace(words=caption_ids(ids, images.words, head.space))
    return head.losses(image_states(head, hidden, images), span)


def image_states(
    head: Order, hidden: Float[Tensor, "b t d"], images: WrittenImages
) -> Float[Tensor, "n r d"]:
    """The hidden states that the head learns from: of each image, or of the words before it."""
    if images.words is not None and head.layout().follows_words:
        return hidden.flatten(0, 1)[(images.words - 1).clamp(min=0)]
    rows = torch.tensor(head.layout().rows, device=hidden.device)
    return hidden.flatten(0, 1)[(images.starts[:, None] + rows).clamp(min=0)]


def caption_ids(ids: Int[Tensor, "b t"], places: Int[Tensor, "n k"], space: Space) -> Int[Tensor, "n k"]:
    """The words at flat positions, and behind the last the end of their space, -1 in one that is not of words."""
    end = space.size if isinstance(space, WordIds) else -1
    return torch.where(places >= 0, ids.flatten()[places.clamp(min=0)], end)
