"""Honeybee's MLP, with the order of layers of its checkpoints."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.connectors import Connector
from chiasm.connectors.learnt import closing_tokens, learnt_positions, prenorm_layer, silu_mlp
from chiasm.parts.bounds import Cells, Count, Depth


class HoneybeeMLP(Connector, name="honeybee_mlp"):
    """Honeybee's plain projector: linear layers with SiLU between them (arXiv 2312.06742).

    Args:
        depth: linear layers.
        prenorm: layer norm of the features first.
        positions: rows and columns of the features for which positions are learnt; null = none.
        closing: learnt tokens behind those of every picture.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        depth: Depth = 2,
        prenorm: bool = False,
        positions: tuple[Cells, Cells] | None = None,
        closing: Count = 0,
    ):
        super().__init__()
        self.prenorm = prenorm_layer(prenorm, in_width)
        self.positions = learnt_positions(positions, in_width)
        self.layers = silu_mlp(depth, in_width, out_width)
        self.closing, self.extra = closing_tokens(closing, out_width), closing

    def tokens(self, grid: tuple[int, int]) -> int:
        return grid[0] * grid[1] + self.extra

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return grid if not self.extra else (1, self.tokens(grid))

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        grid = self.positions(self.prenorm(grid))
        return self.closing(rearrange(self.layers(grid), "n gh gw d -> n (gh gw) d"))
