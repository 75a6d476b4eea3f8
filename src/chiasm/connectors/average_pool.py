"""Averages over cells, then an MLP."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors import Connector
from chiasm.parts.bounds import Cells, Depth


class AveragePool(Connector, name="average_pool"):
    """Features averaged over the cells of a coarser grid, then an MLP: what an abstractor is to beat.

    DeCo (arXiv 2405.20985) found it as good as learnt queries; Honeybee's C-Abstractor of depth 0 is the same.

    Args:
        side: rows and columns of visual tokens; cells overlap by a feature where they do not divide the grid.
        depth: linear layers, with GELU between them.
    """

    def __init__(self, in_width: int, out_width: int, *, side: Cells = 2, depth: Depth = 2):
        super().__init__()
        self.side = side
        layers: list[nn.Module] = [nn.Linear(in_width, out_width)]
        for _ in range(depth - 1):
            layers += [nn.GELU(), nn.Linear(out_width, out_width)]
        self.layers = nn.Sequential(*layers)

    def tokens(self, grid: tuple[int, int]) -> int:
        return self.side**2

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        pooled = functional.adaptive_avg_pool2d(rearrange(grid, "n gh gw c -> n c gh gw"), self.side)
        return self.layers(rearrange(pooled, "n c r s -> n (r s) c"))
