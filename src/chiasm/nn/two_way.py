"""SAM's two-way transformer: tokens look at an image, and the image at the tokens (arXiv 2304.02643)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.nn.multi_head import MultiHeadAttention


class TwoWayTransformer(nn.Module):
    """Layers of attention among tokens, from tokens to the image, an MLP, and from the image to tokens.

    Before each attention what the tokens were at first, and the image's positions, are added to queries and keys.

    narrowing: the attentions between tokens and image have that many times fewer channels.
    """

    def __init__(self, width: int, *, depth: int, heads: int, hidden: int, narrowing: int = 2):
        super().__init__()
        if width % (narrowing * heads):
            raise RecipeError(
                f"a two-way transformer: {heads} heads do not divide 1/{narrowing} of the width {width}"
            )
        self.layers = nn.ModuleList(TwoWayLayer(width, heads, hidden, narrowing) for _ in range(depth))
        self.last = MultiHeadAttention(width, heads, inner=width // narrowing)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        tokens: Float[Tensor, "n q d"],
        image: Float[Tensor, "n s d"],
        positions: Float[Tensor, "s d"],
    ) -> tuple[Float[Tensor, "n q d"], Float[Tensor, "n s d"]]:
        """What tokens and image become."""
        x = tokens
        for i, layer in enumerate(self.layers):
            x, image = layer(x, image, tokens, positions, first=i == 0)
        return self.norm(x + self.last(x + tokens, image + positions, image)), image


class TwoWayLayer(nn.Module):
    """One layer of `TwoWayTransformer`; a LayerNorm follows each part."""

    def __init__(self, width: int, heads: int, hidden: int, narrowing: int):
        super().__init__()
        self.among = MultiHeadAttention(width, heads)
        self.to_image, self.to_tokens = (
            MultiHeadAttention(width, heads, inner=width // narrowing) for _ in range(2)
        )
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.among_norm, self.to_image_norm, self.mlp_norm, self.image_norm = (
            nn.LayerNorm(width) for _ in range(4)
        )

    def forward(
        self,
        x: Float[Tensor, "n q d"],
        image: Float[Tensor, "n s d"],
        tokens: Float[Tensor, "n q d"],
        positions: Float[Tensor, "s d"],
        *,
        first: bool,
    ) -> tuple[Float[Tensor, "n q d"], Float[Tensor, "n s d"]]:
        placed = x if first else x + tokens  # at first they are equal
        mixed = self.among(placed, placed, x)
        x = self.among_norm(mixed if first else x + mixed)
        x = self.to_image_norm(x + self.to_image(x + tokens, image + positions, image))
        x = self.mlp_norm(x + self.mlp(x))
        return x, self.image_norm(image + self.to_tokens(image + positions, x + tokens, x))
