"""Blocks of neighbouring features as one token."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.connectors.learnt import RowsAndColumns
from chiasm.errors import RecipeError
from chiasm.nn.activations import Activation
from chiasm.nn.activations import activation as activation_layer
from chiasm.parts.bounds import Cells


class PixelShuffle(Connector, name="pixel_shuffle"):
    """InternVL-1.5's connector: blocks of neighbouring features become one token (arXiv 2404.16821).

    A block's features are joined on channels in the order row, column, channel (as in Idefics3), then LayerNorm,
    linear, GELU, linear. Without `norm` it is InternLM-XComposer2-4KHD's (arXiv 2404.06512).

    Args:
        factor: side of a block in features; a token stands for `factor` squared of them.
        norm: begin with a LayerNorm over a block.
        activation: between the linear layers.
        transposed: the tokens go down the columns and not along the rows, as in InternVL before 1.5
            (`ps_version: v1`).
        positions: rows and columns of tokens, for learnt vectors of each row and column added to them; a small
            language model from scratch needs these to tell left from right. None in the originals.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        factor: Cells = 2,
        norm: bool = True,
        activation: Activation = "gelu",
        transposed: bool = False,
        positions: tuple[Cells, Cells] | None = None,
    ):
        super().__init__()
        self.factor, self.transposed = factor, transposed
        width = in_width * factor**2
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.layers = nn.Sequential(
            nn.Linear(width, out_width), activation_layer(activation), nn.Linear(out_width, out_width)
        )
        self.grid = positions
        self.positions = RowsAndColumns(positions, out_width) if positions else nn.Identity()

    def tokens(self, grid: tuple[int, int]) -> int:
        rows, columns = self.token_grid(grid)
        return rows * columns

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        rows, columns = grid
        if rows % self.factor or columns % self.factor:
            raise RecipeError(
                f"connector 'pixel_shuffle' cannot cut a {rows}x{columns} grid by {self.factor}"
            )
        blocks = (rows // self.factor, columns // self.factor)
        tokens = blocks[::-1] if self.transposed else blocks
        if self.grid not in (None, tokens):
            raise RecipeError(
                f"connector 'pixel_shuffle' has positions for {self.grid[0]}x{self.grid[1]} tokens, "
                f"but a {rows}x{columns} grid gives {tokens[0]}x{tokens[1]}"
            )
        return tokens

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        self.tokens((grid.shape[1], grid.shape[2]))
        f = self.factor
        order = "(gw gh)" if self.transposed else "(gh gw)"
        blocks = rearrange(grid, f"n (gh a) (gw b) c -> n {order} (a b c)", a=f, b=f)
        return self.positions(self.layers(self.norm(blocks)))
