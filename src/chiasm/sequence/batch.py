"""Rows of packed documents, with what is seen in them and what heads shall write."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chiasm.sequence.layout import Layout

if TYPE_CHECKING:
    from chiasm.sequence.documents import SignalSlot

PADDING = -1  # the document of a position that holds nothing


@dataclass
class ReadImages:
    """Pictures to look at.

    groups: pixels (n 3 h w) or, when `encoded`, features (n gh gw c), one tensor for each size.
    places: flat positions (row * t + column) that visual tokens fill.
    sources: for each place, the row in the table of all visual tokens, group by group, view by view, and behind
        them the markers of the views, or their words.
    tokens: how many visual tokens a view of each group was promised to make.
    lengths: visual tokens of each picture; where they are cross-attended, `places` has one position for
        each picture, and `sources` all of its tokens.
    centres: of each group, where its views lie (n 2); see `chiasm.views.Views.locate`. None: it does not matter.
    cells: of each group, the rows and columns of its views (n 2); see `chiasm.connectors.Connector`. None: it does
        not matter.
    words: ids of the views' words, of the language model; None: they have none.
    """

    groups: list[Tensor]
    encoded: bool
    places: Int[Tensor, " s"]
    sources: Int[Tensor, " s"]
    tokens: list[int]
    lengths: list[int] = field(default_factory=list)
    centres: list[Float[Tensor, "n 2"]] | None = None
    cells: list[Int[Tensor, "n 2"]] | None = None
    words: Int[Tensor, " w"] | None = None


@dataclass
class WrittenImages:
    """Pictures to make.

    targets: codes (n gh gw) or vectors (n gh gw c) when `encoded`, else pixels (n 3 h w). Where conditions of an
        image decoder are written, the vectors are those of its autoencoder.
    starts: flat position of each picture's first place.
    words: flat positions of the words for which each picture is drawn, -1 behind the last; None = for none.
    sources: of the image that each comes of by a change, pixels or vectors likewise; None = they come of none.
    """

    targets: Tensor
    encoded: bool
    starts: Int[Tensor, " n"]
    words: Int[Tensor, "n k"] | None = None
    sources: Float[Tensor, "n ..."] | None = None

    def orphans(self, positions: Int[Tensor, "b t"]) -> Bool[Tensor, " n"]:
        """Which images have nothing before them in their document; positions: of the batch."""
        return positions.flatten()[self.starts] == 0


@dataclass
class WrittenMasks:
    """Masks to write.

    targets: of each question, its masks (m h w) as large as the view of its image.
    starts: flat position of each question's first mask position.
    questions: how many positions before that one the question's words begin.
    images: of each, the group of `ReadImages` in which its image is, and its number there.
    """

    targets: list[Bool[Tensor, "m h w"]]
    starts: list[int]
    questions: list[int]
    images: list[tuple[int, int]]


@dataclass
class Signals:
    """Signals of one modality. starts: flat position of each's first place."""

    values: Float[Tensor, "n ..."]
    starts: Int[Tensor, " n"]


@dataclass
class Written:
    """What heads shall write, each under its head's name; None = nothing. signals: by modality."""

    image: WrittenImages | None = None
    mask: WrittenMasks | None = None
    signals: dict[str, Signals] = field(default_factory=dict)


Moved = TypeVar("Moved")


@dataclass
class PackedBatch:
    """b rows of t positions; see `chiasm.sequence.layout.Layout` for its columns."""

    ids: Int[Tensor, "b t"]  # image positions hold a placeholder
    labels: Int[Tensor, "b t"]  # already shifted, IGNORE = no text loss
    positions: Int[Tensor, "b t"]  # restart at every document
    documents: Int[Tensor, "b t"]  # PADDING = nothing stands here
    kinds: Int[Tensor, "b t"]
    coordinates: Int[Tensor, "b t 3"]
    opens: Bool[Tensor, "b t"]
    exposed: Bool[Tensor, "b t"]
    read: ReadImages | None = None
    shown: WrittenImages | None = None  # pictures to look at by their codes, in models without an encoder
    written: Written = field(default_factory=Written)
    signals: dict[str, Signals] = field(default_factory=dict)  # that are read, by modality
    unopened: list[tuple[int, SignalSlot]] = field(default_factory=list)  # all signals, with flat starts

    @property
    def layout(self) -> Layout:
        return Layout(
            self.documents,
            self.opens,
            self.exposed,
            kinds=self.kinds,
            positions=self.positions,
            coordinates=self.coordinates,
        )

    @property
    def real(self) -> int:
        """Positions that are not padding."""
        return int((self.documents != PADDING).sum())

    @property
    def samples(self) -> int:
        """Documents."""
        return sum(len(row[row != PADDING].unique()) for row in self.documents)

    def to(self, device: torch.device | str) -> PackedBatch:
        return _moved(self, device)


def _moved(value: Moved, device: torch.device | str) -> Moved:
    changed: dict[str, Any] = {}
    for each in fields(value):  # type: ignore[arg-type]
        item = getattr(value, each.name)
        if isinstance(item, Tensor):
            changed[each.name] = item.to(device, non_blocking=True)
        elif isinstance(item, list) and item and isinstance(item[0], Tensor):
            changed[each.name] = [tensor.to(device, non_blocking=True) for tensor in item]
        elif isinstance(item, dict):
            changed[each.name] = {key: _moved(inner, device) for key, inner in item.items()}
        elif is_dataclass(item):
            changed[each.name] = _moved(item, device)
    return replace(value, **changed)  # type: ignore[type-var]


def fill(
    embeddings: Float[Tensor, "b t d"], places: Int[Tensor, " s"], values: Float[Tensor, "s d"]
) -> Float[Tensor, "b t d"]:
    """The embeddings with `values` at the flat positions `places`."""
    flat = embeddings.flatten(0, 1).index_copy(0, places, values.to(embeddings.dtype))
    return flat.view_as(embeddings)


def fill_from(
    embeddings: Float[Tensor, "b t d"], starts: Int[Tensor, " n"], values: Float[Tensor, "n k d"]
) -> Float[Tensor, "b t d"]:
    """The embeddings with `values` in a row from each of the flat positions `starts` on."""
    places = starts[:, None] + torch.arange(values.shape[1], device=starts.device)
    return fill(embeddings, places.flatten(), rearrange(values, "n k d -> (n k) d"))
