"""One linear layer."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector


class Linear(Connector, name="linear"):
    """LLaVA's first projector: one linear layer, a visual token a feature (arXiv 2304.08485)."""

    def __init__(self, in_width: int, out_width: int):
        super().__init__()
        self.layer = nn.Linear(in_width, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        return grid[0] * grid[1]

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        return self.layer(rearrange(grid, "n gh gw c -> n (gh gw) c"))
