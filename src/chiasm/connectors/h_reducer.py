"""mPLUG-DocOwl-1.5's H-Reducer."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.connectors import Connector
from chiasm.connectors.learnt import closing_tokens
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Cells, Count


class HReducer(Connector, name="h_reducer"):
    """mPLUG-DocOwl-1.5's H-Reducer: neighbours in a row become one token (arXiv 2403.12895).

    A first convolution makes, of every block of features, as many features as it had, side by side in its row; a
    second one makes one of them. Words stand in rows, so that 1 x 4 keeps what belongs together.

    Args:
        kernel: rows and columns of a block, of which one token is made.
        closing: learnt tokens behind those of every view.
    """

    def __init__(
        self, in_width: int, out_width: int, *, kernel: tuple[Cells, Cells] = (1, 4), closing: Count = 1
    ):
        super().__init__()
        self.kernel, self.extra = (kernel[0], kernel[1]), closing
        self.mix = nn.Conv2d(in_width, in_width * kernel[0] * kernel[1], self.kernel, self.kernel)
        self.activation = nn.GELU()
        self.reduce = nn.Conv2d(in_width, in_width, self.kernel, self.kernel)
        self.output = nn.Linear(in_width, out_width)
        self.closing = closing_tokens(closing, out_width)

    def tokens(self, grid: tuple[int, int]) -> int:
        rows, columns = self._reduced(grid)
        return rows * columns + self.extra

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        return (1, self.tokens(grid)) if self.extra else self._reduced(grid)

    def forward(self, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        self._reduced((grid.shape[1], grid.shape[2]))
        x = self.activation(_of_blocks(self.mix, grid))
        x = rearrange(x, "n gh gw (x c) -> n gh (gw x) c", c=grid.shape[-1])
        return self.closing(self.output(rearrange(_of_blocks(self.reduce, x), "n r s c -> n (r s) c")))

    def _reduced(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens: what the first convolution takes of the rows, it gives to the columns."""
        (rows, columns), (down, across) = grid, self.kernel
        if rows % down**2 or columns % across:
            raise RecipeError(
                f"connector 'h_reducer' cannot reduce a {rows}x{columns} grid by {down}x{across}: its rows must be "
                f"divisible by {down**2} and its columns by {across}"
            )
        return rows // down**2, columns // across * down


def _of_blocks(convolution: nn.Conv2d, grid: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n r s d"]:
    """A convolution whose blocks do not overlap, as a product.

    In bf16 on CPUs, torch 2.13's convolution by 1 x k reads memory that nobody wrote where one column comes out.
    """
    rows, columns = convolution.kernel_size
    blocks = rearrange(grid, "n (r a) (s b) c -> n r s (c a b)", a=rows, b=columns)
    return functional.linear(blocks, convolution.weight.flatten(1), convolution.bias)
