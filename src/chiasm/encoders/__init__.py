"""Pixels to a grid of features."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.parts import Part


class Encoder(Part, nn.Module, slot="encoder"):
    """Interface. Pixels are RGB in [0, 1]; an encoder normalises for itself and keeps the grid.

    width: channels of a feature.
    """

    width: int

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of features for pixels of this size; raises RecipeError for one it cannot take."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]: ...
