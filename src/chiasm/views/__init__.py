"""Which crops of a picture are looked at, in which order, and at what size."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.parts import Part

# Zero for an encoder that normalises by (x - 0.5) / 0.5, and near the mean of photographs for the others.
GREY = (127, 127, 127)


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class View:
    """One crop: a box of the picture, resized to `size`, at a place in the mosaic of crops.

    box: left, top, right, bottom in pixels of the picture.
    padding: colour (0 to 255) of what of the box lies beyond the picture.
    filter: how it is resized, with antialiasing.
    via: the box is first made this large, and the view is then taken from it by bicubic interpolation without
        antialiasing.
    """

    box: tuple[float, float, float, float]
    size: Size
    row: int = 0
    column: int = 0
    padding: tuple[int, int, int] = GREY
    filter: Literal["bicubic", "bilinear"] = "bicubic"
    via: Size | None = None


class Views(Part, slot="views"):
    """Interface. All is decided from a size alone, so that token counts are known before a pixel is read.

    Built as `Views(*, options)`; views that learn markers (row ends) are `MarkedViews`.

    marked: built as `Views(width, *, options)`, as they may have markers: learnt vectors among the visual tokens.
    width: of the language model's embeddings; with `connected`, of the block of features that becomes one token.
    markers: of marked views: those vectors, or None where the options leave them out.
    words: of views without markers: texts of the language model among the visual tokens; `arrange` names them as
        it names markers.
    pieces: each of the words is a piece of the vocabulary, as the tokenizer calls it, and not a text.
    connected: the markers stand among the features and pass through the connector, each as a block of its own.
    locates: `locate` says what is added to the visual tokens of each view.
    """

    marked: ClassVar[bool] = False
    connected: ClassVar[bool] = False
    locates: bool = False
    words: Sequence[str] = ()
    pieces: ClassVar[bool] = False
    markers: Float[Tensor, "m d"] | None

    @abstractmethod
    def split(self, size: Size) -> list[View]:
        """The crops of a picture of `size`, in the order in which the encoder sees them."""

    def arrange(self, size: Size, grids: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Which visual tokens the language model reads of a picture, in order.

        grids: rows and columns of visual tokens of each view.
        Returns indices into the tokens of all views, one view after another, each row by row; -1 - m is learnt
        marker m, or text m of `words`. The default reads all tokens, view by view.
        """
        return range(sum(rows * columns for rows, columns in grids))

    def locate(self, centres: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
        """What is added to all visual tokens of views, where there is such: `locates`.

        centres: of each view, the share of the image to the left of its centre, and the share above.
        """
        raise NotImplementedError


class MarkedViews(Views, nn.Module):
    """Views with learnt vectors among the visual tokens, trained as `views`."""

    marked = True
