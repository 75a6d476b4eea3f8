"""Pictures that the language model reads beside its sequence, where each takes one position (Flamingo's way)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.routing import Routing

_media: ContextVar[Media | None] = ContextVar("media", default=None)


class CrossRouting(Routing):
    """Routing that reads the visual tokens beside the sequence, in which a picture takes one position.

    Built as `CrossRouting(language, visual_width, *, options)`; the connector gives tokens of the encoder's width.

    marker: the learnt vector at a picture's position.
    """

    marker: Float[Tensor, "1 d"]


@dataclass(frozen=True, eq=False)
class Media:
    """The pictures that are read beside the sequence, and which of them each position knows.

    tokens: visual tokens of all pictures, one picture after another.
    owners: whose each token is; pictures are counted through all documents.
    first: the first picture of the position's document.
    latest: the last picture up to the position, itself included; below `first` where none was.
    end: the last picture of the document, plus one.
    """

    tokens: Float[Tensor, "s c"]
    owners: Int[Tensor, " s"]
    first: Int[Tensor, "b t"]
    latest: Int[Tensor, "b t"]
    end: Int[Tensor, "b t"]

    @staticmethod
    def of(
        tokens: Float[Tensor, "s c"],
        lengths: Sequence[int],
        places: Int[Tensor, " p"],
        documents: Int[Tensor, "b t"],
    ) -> Media:
        """For packed documents. lengths: tokens of each picture. places: where they stand, flat, ascending."""
        counts = torch.tensor(lengths, device=tokens.device)
        owners = torch.arange(len(lengths), device=tokens.device).repeat_interleave(counts)
        stands = torch.zeros(documents.numel(), dtype=torch.long, device=documents.device)
        stands[places] = 1
        seen = stands.cumsum(0)
        opens = torch.ones_like(documents, dtype=torch.bool)
        opens[:, 1:] = documents[:, 1:] != documents[:, :-1]
        starts = opens.flatten().nonzero()[:, 0]
        before = (seen - stands)[starts]
        behind = torch.cat([before[1:], seen[-1:]])
        own = (opens.flatten().long().cumsum(0) - 1).view_as(documents)  # which document, through all rows
        return Media(tokens, owners, before[own], seen.view_as(documents) - 1, behind[own])

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """From which token to which those of each row's pictures stand."""
        starts = torch.searchsorted(self.owners, self.first[:, 0].contiguous())
        stops = torch.searchsorted(self.owners, self.end[:, -1].contiguous())
        return list(zip(starts.tolist(), stops.tolist(), strict=True))

    def continued(self, count: int) -> Media:
        """For `count` more positions of rows that hold one document each."""
        first, end = (each[:, :1].expand(-1, count) for each in (self.first, self.end))
        return Media(self.tokens, self.owners, first, end - 1, end)


@contextmanager
def beside(media: Media | None) -> Iterator[None]:
    """Within this context, `current_media` tells what is read beside the sequence."""
    token = _media.set(media)
    try:
        yield
    finally:
        _media.reset(token)


def current_media() -> Media | None:
    """The pictures read beside the sequence; None where there are none."""
    return _media.get()
