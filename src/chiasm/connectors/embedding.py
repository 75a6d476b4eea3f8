"""Patches embedded as tokens, with a class token and positions."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors import Connector
from chiasm.parts.bounds import Cells

FIRST = 2  # the row of the first position, as fairseq counts


class Embedding(Connector, name="embedding"):
    """BEiT-3's embedding of patches (arXiv 2208.10442): linear, after a learnt class token, with positions.

    With the encoder 'patches' nothing else stands before the language model. For another grid the positions of
    the patches are interpolated.

    Args:
        grid: rows and columns that have a learnt position each.
    """

    masks = True

    def __init__(self, in_width: int, out_width: int, *, grid: tuple[Cells, Cells] = (14, 14)):
        super().__init__()
        self.grid = grid
        self.projection = nn.Linear(in_width, out_width)
        self.class_token = nn.Parameter(torch.empty(out_width))
        # The first two rows are not used; they are the original's.
        self.positions = nn.Parameter(torch.empty(FIRST + 1 + grid[0] * grid[1], out_width))
        # Replaces a patch that is masked; only the objective `masked_data` learns it.
        self.register_buffer("mask_token", torch.zeros(out_width))
        for table in (self.projection.weight, self.class_token, self.positions):
            nn.init.trunc_normal_(table, std=0.02)

    def tokens(self, grid: tuple[int, int]) -> int:
        return 1 + grid[0] * grid[1]

    def forward(
        self,
        grid: Float[Tensor, "n gh gw c"],
        masked: Float[Tensor, "n gh gw"] | None = None,
        mask_token: Float[Tensor, " d"] | None = None,
    ) -> Float[Tensor, "n k d"]:
        """masked: 1 where a mask token replaces a patch, 0 elsewhere. mask_token: by default its own."""
        patches = self.projection(grid)
        if masked is not None:
            token = self.mask_token if mask_token is None else mask_token
            patches = torch.lerp(patches, token.to(patches.dtype), masked[..., None].to(patches.dtype))
        patches = rearrange(patches, "n gh gw d -> n (gh gw) d")
        first = repeat(self.class_token, "d -> n 1 d", n=len(grid)).to(patches.dtype)
        return torch.cat([first, patches], 1) + self._positions((grid.shape[1], grid.shape[2]))

    def _positions(self, grid: tuple[int, int]) -> Float[Tensor, "k d"]:
        first, table = self.positions[FIRST:].split([1, self.grid[0] * self.grid[1]])
        if grid != self.grid:
            planes = rearrange(table, "(r s) d -> 1 d r s", r=self.grid[0])
            planes = functional.interpolate(planes, grid, mode="bicubic", align_corners=False)
            table = rearrange(planes, "1 d r s -> (r s) d")
        return torch.cat([first, table])

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"grid": [4, 4]}
