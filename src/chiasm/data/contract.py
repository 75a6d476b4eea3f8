"""What the data side must know of a model: how many positions an image takes, from its size alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Protocol

from chiasm.errors import ChiasmError, DataError
from chiasm.parts.outline import outline
from chiasm.views import Size, View

if TYPE_CHECKING:
    from chiasm.heads import SpanLayout
    from chiasm.language.text import TextTokenizer


class SplitsImages(Protocol):
    """What the data side asks of views; see `chiasm.views.Views`."""

    locates: bool

    @property
    def pieces(self) -> bool: ...
    @property
    def words(self) -> Sequence[str]: ...
    def split(self, size: Size) -> list[View]: ...
    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]: ...


class HasGrid(Protocol):
    """What the data side asks of an encoder; see `chiasm.encoders.Encoder`."""

    def grid(self, height: int, width: int) -> tuple[int, int]: ...


class CountsTokens(Protocol):
    """What the data side asks of a connector; see `chiasm.connectors.Connector`."""

    @property
    def cells(self) -> int | None: ...
    def tokens(self, grid: tuple[int, int]) -> int: ...
    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]: ...


@dataclass(frozen=True)
class SignalLayout:
    """Of a modality: how many positions a signal takes, and the shape of its numbers."""

    positions: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contract:
    """What the data side must know of a model, as plain data that another process can be handed.

    Parts with weights may be given; their outlines are kept (`chiasm.parts.outline`).
    """

    tokenizer: TextTokenizer
    context: int
    views: SplitsImages | None = None
    encoder: HasGrid | None = None
    connector: CountsTokens | None = None
    span: SpanLayout | None = None
    written_size: Size | None = None
    sheet: int | None = None  # frames of the clips whose sheets are written; None = other images are
    shown: SpanLayout | None = None  # of pictures that are read by their codes; None: the encoder reads them
    says: bool = True  # words are predicted; else only read
    whole_pictures: bool = False  # tokens of a picture that is read see each other, else those before them
    encodes_prompt: bool = False  # what stands before an answer is one block, which an encoder reads
    mask_positions: int = 0  # in which masks are written; 0 = they are not
    most_masks: int | None = None  # that are written there; None = any number
    changes_images: bool = False  # an image is written by changing the last one that was read before it
    cross_attends: bool = False  # to images that are read; each has one position in the sequence
    signals: Mapping[str, SignalLayout] = field(default_factory=dict)  # by modality

    def __post_init__(self) -> None:
        for slot in ("views", "encoder", "connector"):
            object.__setattr__(self, slot, outline(getattr(self, slot)))

    def read_views(self, size: Size, where: str) -> list[tuple[View, int]]:
        """The views of a picture and how many visual tokens each will make."""
        views, encoder, connector = self._reading(where)
        with _counting(where):
            split = _within(views.split(size), connector)
            return [(view, connector.tokens(encoder.grid(*view.size))) for view in split]

    def read_order(self, size: Size, where: str) -> Sequence[int]:
        """The visual tokens of a picture in the order in which they are read; see `Views.arrange`.

        -1 - w is id w of `view_words`, where the views have words.
        """
        views, encoder, connector = self._reading(where)
        with _counting(where):
            split = _within(views.split(size), connector)
            order = views.arrange(size, [connector.token_grid(encoder.grid(*view.size)) for view in split])
        if not views.words:
            return order
        starts = list(accumulate(map(len, self._view_words), initial=0))
        spelled = [range(-1 - first, -1 - last, -1) for first, last in pairwise(starts)]
        return [each for index in order for each in ((index,) if index >= 0 else spelled[-1 - index])]

    @cached_property
    def view_words(self) -> list[int]:
        """The ids of all words that stand among visual tokens, one after another."""
        return [id for ids in self._view_words for id in ids]

    @cached_property
    def _view_words(self) -> list[tuple[int, ...]]:
        """Of each text of the views."""
        if self.views is None:
            return []
        if self.views.pieces:
            return [(self.tokenizer.piece(name),) for name in self.views.words]
        return [self.tokenizer.encode(text) for text in self.views.words]

    def read_words(self, size: Size, where: str) -> dict[int, int]:
        """The ids of the views' words by their places among the positions of a picture."""
        if not self.view_words or self.cross_attends or self.shown is not None:
            return {}
        order = enumerate(self.read_order(size, where))
        return {place: self.view_words[-1 - index] for place, index in order if index < 0}

    def read_coordinates(self, size: Size, where: str) -> list[tuple[int, int, int]]:
        """Of every visual token in the order in which they are read: how many stand before it, and its cell in its
        view; a marker or word of the views has none.
        """
        views, encoder, connector = self._reading(where)
        with _counting(where):
            grids = [connector.token_grid(encoder.grid(*view.size)) for view in views.split(size)]
            cells = [
                (row, column) for rows, columns in grids for row in range(rows) for column in range(columns)
            ]
        order = self.read_order(size, where)
        return [(i, *(cells[index] if index >= 0 else (0, 0))) for i, index in enumerate(order)]

    def read_tokens(self, size: Size, where: str) -> int:
        """How many positions a picture of this size takes, markers included."""
        if self.shown is not None:
            return self.shown.length
        return 1 if self.cross_attends else len(self.read_order(size, where))

    def _reading(self, where: str) -> tuple[SplitsImages, HasGrid, CountsTokens]:
        if self.views is None or self.encoder is None or self.connector is None:
            raise DataError(f"{where} shows a picture, but this model has no encoder")
        return self.views, self.encoder, self.connector


def _within(views: list[View], connector: CountsTokens) -> list[View]:
    """The views; raises DataError for one that lies beyond the places that the connector tells apart."""
    cells = connector.cells
    for view in views:
        if cells is not None and max(view.row, view.column) >= cells:
            raise DataError(
                f"a view stands in row {view.row}, column {view.column} of the image's grid, but the connector has "
                f"positions for {cells} rows and columns alone; raise its 'cells' or choose smaller grids"
            )
    return views


@contextmanager
def _counting(where: str) -> Iterator[None]:
    """Turn what goes wrong in a part's counting into a DataError."""
    try:
        yield
    except ChiasmError as error:
        raise DataError(f"{where}: {error}") from None
    except AttributeError as error:
        raise DataError(
            f"{where}: a part counts its tokens with more than plain data: {error}; it must keep what it needs as "
            "a number, a text or a dataclass of them"
        ) from error
