"""How hidden states of the language model become a picture: targets, losses, sampling."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from chiasm.generators import Generators
from chiasm.heads.drawing import Ask, DrawingState, Writing, finish
from chiasm.heads.sampling import GREEDY, Sampling
from chiasm.losses import Loss
from chiasm.parts import Part

__all__ = [
    "GREEDY",
    "Ask",
    "DrawingState",
    "ImageHead",
    "Sampling",
    "Span",
    "SpanLayout",
    "Writing",
    "finish",
    "raster",
]


@dataclass(frozen=True)
class SpanLayout:
    """How a written picture stands in the sequence, known before a pixel is read.

    opens, exposed: the attention rule at each of its positions (see `chiasm.sequence`).
    rows: offsets, from the picture's first position, of the hidden states that predict it; -1 is the position
        just before it (the marker that begins a picture).
    coordinates: of each position, how many stand before it in the picture, its row and its column (see `raster`).
    bare: the empty prompt of guidance holds nothing but that marker, not even what begins a document.
    """

    opens: tuple[bool, ...]
    exposed: tuple[bool, ...]
    rows: tuple[int, ...]
    coordinates: tuple[tuple[int, int, int], ...]
    bare: bool = False

    @property
    def length(self) -> int:
        return len(self.opens)


def raster(rows: int, columns: int) -> tuple[tuple[int, int, int], ...]:
    """Coordinates of a grid's cells, row by row."""
    return tuple((i, *divmod(i, columns)) for i in range(rows * columns))


class Span(NamedTuple):
    """What stands at the positions of written pictures, and what their hidden states shall predict.

    orphans: pictures with nothing before them in their document, whose row -1 is no hidden state of theirs: what
        it would predict is not learnt.
    """

    embeddings: Float[Tensor, "n k d"]
    targets: Tensor  # first two axes: picture, row of `SpanLayout.rows`
    orphans: Bool[Tensor, " n"] | None = None


class ImageHead(Part, nn.Module, slot="image_head"):
    """Interface. Built as `ImageHead(width, codebook_size, grid, *wanted, *, options)`.

    wants: slots of the model that the builder hands to the head as well, behind the grid. A head keeps them in a
        tuple, so that their weights are registered, saved and counted once, in their own slot.
    shows: whether a picture that is only looked at can stand in the sequence as its codes, in models without an
        encoder.
    reserved: ids of the language model's vocabulary that stand for codes, which text never holds.
    unconditional: share of training pictures that follow an empty prompt, for guidance (0 = never).
    """

    wants: ClassVar[tuple[str, ...]] = ()
    shows: ClassVar[bool] = False
    reserved: Sequence[int] = ()
    unconditional: float

    @abstractmethod
    def layout(self) -> SpanLayout: ...

    @abstractmethod
    def prepare(self, codes: Int[Tensor, "n gh gw"]) -> Span: ...

    def shown_layout(self) -> SpanLayout:
        """How a picture that is only looked at stands in the sequence; its `rows` mean nothing."""
        return self.layout()

    def show(self, codes: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n k d"]:
        """What stands at the positions of pictures that are only looked at."""
        return self.prepare(codes).embeddings

    @abstractmethod
    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        """Losses by name, from the hidden states at `SpanLayout.rows`."""

    def terms(self, codes: Int[Tensor, "n gh gw"], orphans: Bool[Tensor, " n"]) -> dict[str, float] | None:
        """How many terms each loss of these pictures will have; None = as many for each, but for orphans."""
        return None

    @abstractmethod
    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw n images, behind prompts that end with the begin marker; returns their codes (n gh gw).

        start: hidden states of the begin marker, one a row: r = n, or 2 n with guidance, first all that follow
            their prompt, then, in the same order, those that follow the empty prompt.
        generators: one an image, whose numbers no other image takes.
        progress: where what is drawn is noted, and what there is of it found, to go on from there.
        Raises ChiasmError when guidance is asked of a head that never saw an empty prompt.
        """
