"""A grid of features to visual tokens of the language model's width."""

import math
from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.parts import Part


class Connector(Part, nn.Module, slot="connector"):
    """Interface. Built as `Connector(in_width, out_width, *, options)`.

    Tokens are counted without weights: `tokens` uses plain attributes alone (see `chiasm.parts.outline`).

    masks: `forward` takes also which features are masked (n gh gw) and the vector that stands for them, in place of
        its own `mask_token`.
    cells: how many rows and columns of an image's views it tells apart: then `forward` takes also the row and the
        column of each view (int n 2), as `chiasm.views.View` has them. None: it reads no place.
    """

    masks: ClassVar[bool] = False
    cells: int | None = None
    mask_token: Tensor

    @abstractmethod
    def tokens(self, grid: tuple[int, int]) -> int:
        """How many visual tokens a grid of features becomes; raises RecipeError for a grid it cannot take."""

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the visual tokens of a grid of features, for views that lay tiles side by side.

        The default takes a whole fraction of the grid for granted where the count allows it, else one row.
        """
        count = self.tokens(grid)
        factor = math.isqrt(grid[0] * grid[1] // max(count, 1))
        if factor and grid[0] % factor == grid[1] % factor == 0 and count * factor**2 == grid[0] * grid[1]:
            return grid[0] // factor, grid[1] // factor
        return 1, count

    def block(self) -> int | None:
        """Side of the smallest square of features that becomes one token; None where there is none up to 16.

        Views with markers that pass through the connector make each of them as such a square.
        """
        for side in range(1, 17):
            try:
                if self.tokens((side, side)) == 1:
                    return side
            except RecipeError:
                continue
        return None

    @abstractmethod
    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]: ...
