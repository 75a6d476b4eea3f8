"""PixelLLM's point a word."""

from __future__ import annotations

from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.nn.activations import activation

COORDINATES = 2


class WordPoints(nn.Module):
    """Points in an image at each word, from the language model's hidden state (PixelLLM, arXiv 2312.09237).

    Args:
        width: of the hidden states.
        hidden: of the MLP.
        depth: its layers.
        points: how many points a word has.
        extra: numbers beside the coordinates of a point, which the released model does not use.
        normed: a LayerNorm in front.
    """

    def __init__(
        self,
        width: int,
        *,
        hidden: int = 512,
        depth: int = 3,
        points: int = 4,
        extra: int = 2,
        normed: bool = False,
        kind: Literal["gelu", "relu"] = "relu",
    ):
        super().__init__()
        self.points = points
        self.norm = nn.LayerNorm(width, 1e-6) if normed else nn.Identity()
        layers: list[nn.Module] = []
        for i in range(depth):
            outputs = hidden if i < depth - 1 else points * (COORDINATES + extra)
            layers += [activation(kind)] if i else []
            layers.append(nn.Linear(hidden if i else width, outputs))
        self.layers = nn.Sequential(*layers)

    def forward(
        self, hidden: Float[Tensor, "*s d"]
    ) -> tuple[Float[Tensor, "*s p 2"], Float[Tensor, "*s p e"]]:
        """x and y of each point as shares of the image, which may lie outside, and the numbers beside them."""
        numbers: Tensor = rearrange(self.layers(self.norm(hidden)), "... (p e) -> ... p e", p=self.points)
        return (numbers[..., :COORDINATES] + 1) / 2, numbers[..., COORDINATES:]
