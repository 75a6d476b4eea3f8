"""LaVIT's visual tokens: the patches that matter, enriched by the others."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.connectors.selection import Merger, Selector, best, patches_of, strong_positions
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Cells, Depth, Heads, Share, Width


class LaVITConnector(Connector, name="lavit"):
    """LaVIT's selector, merger and projection (arXiv 2309.04669).

    How many patches of an image are worth keeping is not known from its size, but the number of visual tokens
    must be. So a fixed share is kept, for every image the patches with the best scores, in raster order; the
    share is what the original's selector is trained to keep on average. The image tokenizer `lavit` keeps the
    original's varying number.

    Args:
        keep: share of the patches that become visual tokens.
        positions: rows and columns of features that get a learnt position each, for encoders whose features do not
            tell it (convolutional ones); null = none.
        depth: blocks of the merger.
        heads: attention heads of the merger.
        hidden: hidden width of the merger's MLPs.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        keep: Share = 1 / 3,
        depth: Depth = 12,
        heads: Heads = 16,
        hidden: Width = 6144,
        positions: tuple[Cells, Cells] | None = None,
    ):
        super().__init__()
        if not 0 < keep <= 1:
            raise RecipeError(f"connector 'lavit': keep is {keep}; it must be in (0, 1]")
        if in_width % heads:
            raise RecipeError(f"connector 'lavit': {heads} heads must divide the features' width {in_width}")
        self.keep = keep
        self.positions = strong_positions(positions, in_width)
        self.selector = Selector(in_width)
        self.merger = Merger(in_width, depth, heads, hidden)
        self.projection = nn.Linear(in_width, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        return max(1, round(self.keep * grid[0] * grid[1]))

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, self.tokens(grid)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        patches = patches_of(self.positions(grid))
        count = self.tokens((grid.shape[1], grid.shape[2]))
        keep_mask = best(self.selector(patches), count)
        merged = self.merger(patches, keep_mask.to(patches.dtype))
        chosen = merged[keep_mask > 0.5]
        return self.projection(rearrange(chosen, "(n k) c -> n k c", k=count))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"depth": 1, "heads": 4, "hidden": 16}
