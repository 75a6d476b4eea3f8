"""Pixels of masked patches, predicted."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.encoders.vit import ViTBlock
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.nn.losses import Loss
from chiasm.objectives import Described, Objective, Setting
from chiasm.parts.bounds import Depth, Heads, Share, Width

EPSILON = 1e-6  # of the variance of a patch


class MaskedReconstruction(Objective, name="masked_reconstruction"):
    """MAE: from a few patches of a picture, the pixels of all others (arXiv 2111.06377).

    The encoder works on the visible patches alone, where it can; a small transformer puts a learnt token in the
    place of each patch that is missing, and makes the pixels of those, each patch normalised by its own mean and
    deviation. The loss is the squared error over the missing patches.

    Args:
        masked: share of the patches that are dropped.
        width: of the decoder.
        depth: blocks of the decoder.
        heads: attention heads of the decoder.
        normalised: whether the pixels of a patch are normalised before they are to be made.
    """

    names: ClassVar = ("reconstruction",)

    def __init__(
        self,
        setting: Setting,
        *,
        masked: Share = 0.75,
        width: Width = 512,
        depth: Depth = 8,
        heads: Heads = 16,
        normalised: bool = True,
    ):
        super().__init__()
        encoder = setting.model.encoder
        assert encoder is not None
        rows, columns = encoder.patches(*setting.size)
        high, wide = setting.size.height // rows, setting.size.width // columns
        if not 0 < masked < 1 or not 0 < round(rows * columns * (1 - masked)) < rows * columns:
            raise RecipeError(
                f"objective 'masked_reconstruction': masked {masked} of {rows * columns} patches"
            )
        if width % (4 * heads):
            raise RecipeError(
                f"objective 'masked_reconstruction': width {width} must be a multiple of 4 x {heads} heads"
            )
        self.grid, self.patch, self.normalised = (rows, columns), (high, wide), normalised
        self.visible_count = round(rows * columns * (1 - masked))
        self.into = nn.Linear(encoder.width, width)
        self.missing = nn.Parameter(torch.randn(width) * 0.02)
        self.register_buffer("places", _places(rows, columns, width), persistent=False)
        self.blocks = nn.Sequential(*(ViTBlock(width, heads, 4 * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 3 * high * wide)

    places: Tensor

    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        assert model.encoder is not None
        order = torch.rand(len(batch), self.grid[0] * self.grid[1], device=batch.pixels.device).argsort(dim=1)
        features = model.encoder.visible(batch.pixels, order[:, : self.visible_count])
        self.observe(reduce(features, "n s c -> n c", "mean"))
        pixels = self._decode(features, order)[:, self.visible_count :]
        hidden = repeat(order[:, self.visible_count :], "n s -> n s p", p=pixels.shape[2])
        targets = self._targets(batch.pixels).gather(1, hidden)
        return {"reconstruction": Loss.of(reduce((pixels.float() - targets) ** 2, "n s p -> n", "mean"))}

    def _decode(self, features: Float[Tensor, "n k c"], order: Int[Tensor, "n s"]) -> Float[Tensor, "n s p"]:
        """Pixels of all patches, in the shuffled order: the visible ones first."""
        visible = self.into(features)
        masked = self.missing.to(visible.dtype).expand(len(visible), order.shape[1] - self.visible_count, -1)
        return self.out(self.norm(self.blocks(torch.cat([visible, masked], dim=1) + self.places[order])))

    def _targets(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n s p"]:
        high, wide = self.patch
        cut = rearrange(pixels, "n c (gh h) (gw w) -> n (gh gw) (h w c)", h=high, w=wide)
        if not self.normalised:
            return cut
        return (cut - cut.mean(2, keepdim=True)) / (cut.var(2, keepdim=True) + EPSILON).sqrt()

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 16, "depth": 1, "heads": 2}


def _places(rows: int, columns: int, width: int) -> Float[Tensor, "s d"]:
    """Sines and cosines of each patch's row, then of its column (as in MAE's code)."""
    frequencies = 10000.0 ** -(torch.arange(width // 4) / (width / 4))
    down, across = (torch.outer(torch.arange(n).float(), frequencies) for n in (rows, columns))
    down, across = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in (down, across))
    down, across = repeat(down, "r d -> r c d", c=columns), repeat(across, "c d -> r c d", r=rows)
    return rearrange(torch.cat([down, across], dim=2), "r c d -> (r c) d")
