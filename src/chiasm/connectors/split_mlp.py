"""A layer for the features of each of several encoders, then an MLP for all."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Depth, Width


class SplitMLP(Connector, name="split_mlp"):
    """DeepSeek-VL's adaptor for features of several encoders joined on channels (arXiv 2403.05525).

    Each encoder's channels go through a linear layer of their own to an equal share of the token; then GELU and
    linear layers over the whole.

    Args:
        widths: channels of each encoder, in their order; null = two halves.
        depth: linear layers one after another, the first of them split.
    """

    def __init__(self, in_width: int, out_width: int, *, widths: list[Width] | None = None, depth: Depth = 2):
        super().__init__()
        self.widths = [in_width // 2] * 2 if widths is None else list(widths)
        if sum(self.widths) != in_width or out_width % len(self.widths):
            raise RecipeError(
                f"connector 'split_mlp' cannot split {in_width} channels as {' + '.join(map(str, self.widths))} "
                f"to equal shares of {out_width}"
            )
        share = out_width // len(self.widths)
        self.shares = nn.ModuleList(nn.Linear(width, share) for width in self.widths)
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [nn.GELU(), nn.Linear(out_width, out_width)]
        self.layers = nn.Sequential(*layers)

    def tokens(self, grid: tuple[int, int]) -> int:
        return grid[0] * grid[1]

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        parts = rearrange(grid, "n gh gw c -> n (gh gw) c").split(self.widths, dim=-1)
        return self.layers(torch.cat([layer(part) for layer, part in zip(self.shares, parts)], dim=-1))
