"""How a written image stands in the sequence, and what its hidden states shall predict."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SpanLayout:
    """How a written image stands in the sequence, known before a pixel is read.

    opens, exposed: the attention rule at each of its positions (see `chiasm.sequence`).
    rows: offsets, from the image's first position, of the hidden states that predict it; -1 is the position
        just before it (the marker that begins an image).
    coordinates: of each position, how many stand before it in the image, its row and its column (see `raster`).
    bare: the empty prompt of guidance holds nothing but that marker, not even what begins a document.
    words: how many words of the answer before an image are read for it, the last ones; 0 = none are.
    """

    opens: tuple[bool, ...]
    exposed: tuple[bool, ...]
    rows: tuple[int, ...]
    coordinates: tuple[tuple[int, int, int], ...]
    bare: bool = False
    words: int = 0

    @property
    def follows_words(self) -> bool:
        """Whether it is drawn after those words alone: then the hidden states that predict them are its own."""
        return self.words > 0 and not self.rows

    @property
    def length(self) -> int:
        return len(self.opens)


def raster(rows: int, columns: int) -> tuple[tuple[int, int, int], ...]:
    """Coordinates of a grid's cells, row by row."""
    return tuple((i, *divmod(i, columns)) for i in range(rows * columns))


class Span(NamedTuple):
    """What stands at the positions of written images, and what their hidden states shall predict.

    targets: what the hidden states at `SpanLayout.rows` predict, first axis: image.
    orphans: images with nothing before them in their document, whose row -1 is no hidden state of theirs: what
        it would predict is not learnt.
    drawn: what the order has drawn at random, for its losses.
    words: ids of the words before each image (`SpanLayout.words`), and behind them the end of its space.
    sources: pixels of the images that these come of by a change, for the decoder's loss.
    """

    embeddings: Float[Tensor, "n k d"]
    targets: Tensor
    orphans: Bool[Tensor, " n"] | None = None
    drawn: Any = None
    words: Int[Tensor, "n k"] | None = None
    sources: Float[Tensor, "n 3 h w"] | None = None
