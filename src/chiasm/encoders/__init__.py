"""Pixels to a grid of features."""

from abc import abstractmethod

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.parts import Part


class Encoder(Part, nn.Module, slot="encoder"):
    """Interface. Pixels are RGB in [0, 1]; an encoder normalises for itself and keeps the grid.

    Features are counted without weights: `grid` uses plain attributes alone (see `chiasm.parts.outline`).

    width: channels of a feature.
    """

    width: int

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of features for pixels of this size; raises RecipeError for one it cannot take."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]: ...

    # What mask heads ask for beside.

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Channels of each level of the pyramid."""
        return (self.width,)

    def pyramid(self, pixels: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n gh gw c"]]:
        """Features at several resolutions, finest first; the last level is what `forward` gives."""
        return [self(pixels)]

    # What pre-training asks for beside. The defaults do for any encoder; a transformer does better.

    def patches(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches; those of the features, unless other tokens stand among them."""
        return self.grid(height, width)

    def visible(self, pixels: Float[Tensor, "n 3 h w"], keep: Int[Tensor, "n s"]) -> Float[Tensor, "n s c"]:
        """Features of the patches `keep` (row-major), made from them alone.

        An encoder that cannot leave patches out sees the others as grey.
        """
        rows, columns = self.patches(*pixels.shape[-2:])
        mask = torch.zeros(len(pixels), rows * columns, device=pixels.device).scatter(1, keep, 1.0)
        mask = rearrange(mask, "n (gh gw) -> n 1 gh gw", gh=rows)
        mask = functional.interpolate(mask, pixels.shape[-2:], mode="nearest")
        features = self(mask * pixels + (1 - mask) * 0.5)
        flat = rearrange(features, "n gh gw c -> n (gh gw) c")[:, -rows * columns :]
        return flat.gather(1, repeat(keep, "n s -> n s c", c=flat.shape[2]))

    def with_tokens(
        self, pixels: Float[Tensor, "n 3 h w"], tokens: Float[Tensor, "k c"]
    ) -> tuple[Float[Tensor, "n k c"], Float[Tensor, "n gh gw c"]]:
        """What learnt tokens beside the patches become, and the features.

        An encoder that takes no further tokens is asked by them at its end: each is an average of the features,
        weighed by its likeness to them.
        """
        features = self(pixels)
        flat = rearrange(features, "n gh gw c -> n (gh gw) c")
        return functional.scaled_dot_product_attention(tokens.expand(len(flat), -1, -1), flat, flat), features
