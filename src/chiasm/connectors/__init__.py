"""A grid of features to visual tokens of the language model's width."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.parts import Part


class Connector(Part, nn.Module, slot="connector"):
    """Interface. Built as `Connector(in_width, out_width, *, options)`."""

    @abstractmethod
    def tokens(self, grid: tuple[int, int]) -> int:
        """How many visual tokens a grid of features becomes; raises RecipeError for a grid it cannot take."""

    @abstractmethod
    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]: ...
