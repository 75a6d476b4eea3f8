"""Next-token prediction over image codes through small networks before and behind the language model."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.bounds import Chance, Depth, Width
from chiasm.heads.next_token import NextToken


class ProjectedNextToken(NextToken, name="next_token_mlp"):
    """Janus' generation adaptor and head (arXiv 2410.13848).

    As `next_token`, but a code's embedding is narrow and widened by a network of its own, a network predicts the
    codes, and only the language model's positions tell one cell from another.

    Args:
        code_width: width of the codes' own embedding.
        depth: linear layers that widen it to the language model's width, GELU between them.
        hidden: width of the layer before the prediction.
        unconditional: share of training pictures that follow an empty prompt, for guidance (0 = never).
    """

    def __init__(
        self,
        width: int,
        codebook_size: int,
        grid: tuple[int, int],
        *,
        code_width: Width = 8,
        depth: Depth = 2,
        hidden: Width = 2048,
        unconditional: Chance = 0.1,
    ):
        super().__init__(width, codebook_size, grid, unconditional=unconditional)
        del self.cells
        self.codes = nn.Embedding(codebook_size, code_width)
        widths = [code_width] + [width] * depth
        layers = [layer for a, b in pairwise(widths) for layer in (nn.GELU(), nn.Linear(a, b))]
        self.adapter = nn.Sequential(*layers[1:])
        self.output = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, codebook_size))

    def _embed(self, codes: Int[Tensor, "n m"], first: int) -> Float[Tensor, "n m d"]:
        return self.adapter(self.codes(codes))
