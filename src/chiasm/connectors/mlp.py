"""Linear layers with an activation between them."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.nn.activations import Activation
from chiasm.nn.activations import activation as build_activation
from chiasm.parts.bounds import Depth


class MLP(Connector, name="mlp"):
    """LLaVA-1.5's projector: linear layers with an activation between them (arXiv 2310.03744).

    Args:
        depth: linear layers.
        bias: whether the layers add one.
        activation: between the layers.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        depth: Depth = 2,
        bias: bool = True,
        activation: Activation = "gelu",
    ):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(in_width, out_width, bias)]
        for _ in range(depth - 1):
            layers += [build_activation(activation), nn.Linear(out_width, out_width, bias)]
        self.layers = nn.Sequential(*layers)

    def tokens(self, grid: tuple[int, int]) -> int:
        return grid[0] * grid[1]

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        return self.layers(rearrange(grid, "n gh gw c -> n (gh gw) c"))
