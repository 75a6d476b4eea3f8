"""What connectors share: learnt positions, and learnt closing tokens."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class LearntPositions(nn.Module):
    """A learnt vector for each feature of a grid, added to it; for another grid the table is interpolated."""

    def __init__(self, grid: tuple[int, int], width: int):
        super().__init__()
        self.table = nn.Parameter(torch.empty(*grid, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n gh gw c"]:
        table: Tensor = self.table
        if grid.shape[1:3] != table.shape[:2]:
            planes = rearrange(table, "r s c -> 1 c r s")
            planes = functional.interpolate(planes, grid.shape[1:3], mode="bicubic", align_corners=False)
            table = rearrange(planes, "1 c gh gw -> gh gw c")
        return grid + table.to(grid.dtype)


class RowsAndColumns(nn.Module):
    """A learnt vector for each row and one for each column, added to the tokens of a grid of just that size.

    They begin as large as the output of a fresh connector: smaller ones would have no effect at first.
    """

    def __init__(self, grid: tuple[int, int], width: int):
        super().__init__()
        self.rows = nn.Parameter(0.3 * torch.randn(grid[0], 1, width))
        self.columns = nn.Parameter(0.3 * torch.randn(1, grid[1], width))

    def forward(self, tokens: Float[Tensor, "n k d"]) -> Float[Tensor, "n k d"]:
        return tokens + rearrange(self.rows + self.columns, "r c d -> (r c) d").to(tokens.dtype)


def learnt_positions(grid: tuple[int, int] | None, width: int) -> nn.Module:
    """Learnt positions of a grid; without a grid none."""
    return nn.Identity() if grid is None else LearntPositions(grid, width)


class Closing(nn.Module):
    """Learnt tokens after those of every image (Honeybee's 'think' tokens)."""

    def __init__(self, count: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.empty(count, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, tokens: Float[Tensor, "n k d"]) -> Float[Tensor, "n k2 d"]:
        own = repeat(self.table, "e d -> n e d", n=len(tokens)).to(tokens.dtype)
        return torch.cat([tokens, own], dim=1)


def closing_tokens(count: int, width: int) -> nn.Module:
    """Learnt closing tokens; 0 = none."""
    return Closing(count, width) if count else nn.Identity()


def silu_mlp(depth: int, in_width: int, out_width: int) -> nn.Sequential:
    """Linear layers with SiLU between them, as Honeybee reads out its projectors."""
    layers: list[nn.Module] = [nn.Linear(in_width, out_width)]
    for _ in range(depth - 1):
        layers += [nn.SiLU(), nn.Linear(out_width, out_width)]
    return nn.Sequential(*layers)


def prenorm_layer(enabled: bool, width: int) -> nn.Module:
    """Honeybee's optional layer norm of the features."""
    return nn.LayerNorm(width, eps=1e-6) if enabled else nn.Identity()
