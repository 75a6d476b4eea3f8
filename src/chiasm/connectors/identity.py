"""Features that are visual tokens already."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector


class Identity(Connector, name="identity"):
    """Features as they are: those of an encoder that ends in a resampler of its own (Qwen-VL, arXiv 2308.12966).

    Where the language model is of another width, a linear layer brings them to it.
    """

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.output = nn.Linear(in_width, out_width) if in_width != out_width else nn.Identity()

    def tokens(self, grid: tuple[int, int]) -> int:
        return grid[0] * grid[1]

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        return self.output(rearrange(grid, "n gh gw c -> n (gh gw) c"))
