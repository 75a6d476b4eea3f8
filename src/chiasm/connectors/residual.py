"""One residual block of convolutions that halves the grid."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.nn.frozen_norm import FrozenNorm
from chiasm.parts.bounds import Width

EPSILON = 1e-5  # of the norms, torch's own


class Residual(Connector, name="residual"):
    """PSALM's projector: a residual block with a stride of 2, then a linear layer (arXiv 2403.14598).

    Its norms go by stored statistics in training too, so that the tokens of an image depend on no other one.

    Args:
        width: channels of the block.
    """

    def __init__(self, in_width: int, out_width: int, *, width: Width = 2048):
        super().__init__()
        self.halve = nn.Conv2d(in_width, width, 3, stride=2, padding=1, bias=False)
        self.halved_norm = FrozenNorm(width, EPSILON)
        self.refine = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.refined_norm = FrozenNorm(width, EPSILON)
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_width, width, 1, stride=2, bias=False), FrozenNorm(width, EPSILON)
        )
        self.out = nn.Linear(width, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        rows, columns = self.token_grid(grid)
        return rows * columns

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return (grid[0] + 1) // 2, (grid[1] + 1) // 2

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        x = rearrange(grid, "n gh gw c -> n c gh gw")
        halved = self.halved_norm(self.halve(x)).relu()
        refined = self.refine(self.refine(halved))  # twice, as the original's code does
        x = (self.refined_norm(refined) + self.shortcut(x)).relu()
        return self.out(rearrange(x, "n c gh gw -> n (gh gw) c"))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 16}
