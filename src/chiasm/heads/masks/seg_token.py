"""One position that becomes a mask: LISA's `[SEG]`, with a light decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.heads.segmentation import MaskContext, MaskHead, MaskPrediction, Pyramid
from chiasm.nn.losses import Loss
from chiasm.nn.mask_losses import cross_entropy_each, dice_each, resized
from chiasm.nn.masked_attention import mlp
from chiasm.parts.bounds import Count, Weight, Width


class SegToken(MaskHead, name="seg_token"):
    """A segmentation token and a light pixel decoder (LISA, arXiv 2308.00692).

    A learnt token stands behind the question. What the language model makes of it, through an MLP, is a query; the
    mask is its product with features: all levels of the encoder's pyramid, enlarged to the finest and added up,
    then doubled by convolutions. What a question asks for is one mask, which may hold several things, or none.

    Args:
        width: channels of query and features.
        doublings: how many times the finest level's rows and columns are doubled.
        mask_weight: of the cross entropy of masks.
        dice_weight: of their Dice loss.
        score_weight: of the cross entropy of whether there is anything to mark.
    """

    def __init__(
        self,
        context: MaskContext,
        *,
        width: Width = 256,
        doublings: Count = 2,
        mask_weight: Weight = 2.0,
        dice_weight: Weight = 0.5,
        score_weight: Weight = 1.0,
    ):
        super().__init__()
        self.positions = 1
        self.mask_weight, self.dice_weight, self.score_weight = mask_weight, dice_weight, score_weight
        self.token = nn.Parameter(torch.randn(1, context.width) * 0.02)
        self.query = mlp(context.width, width, width, depth=2)
        self.score = nn.Linear(context.width, 1)
        self.levels = nn.ModuleList(nn.Linear(each, width) for each in context.levels)
        self.norm = nn.LayerNorm(width)
        self.doublings = nn.ModuleList(FeatureDoubling(width) for _ in range(doublings))
        self.scale = width**-0.5

    def embeddings(self) -> Float[Tensor, "1 d"]:
        return self.token

    def predict(
        self, hidden: Float[Tensor, "n 1 d"], pyramid: Pyramid, question: Float[Tensor, "n d"]
    ) -> MaskPrediction:
        masks = torch.einsum("nqe,nehw->nqhw", self.query(hidden) * self.scale, self._features(pyramid))
        return MaskPrediction(masks, self.score(hidden)[..., 0])

    def losses(
        self,
        hidden: Float[Tensor, "n 1 d"],
        pyramid: Pyramid,
        question: Float[Tensor, "n d"],
        targets: Sequence[Bool[Tensor, "m h w"]],
    ) -> dict[str, Loss]:
        masks, scores = self.predict(hidden, pyramid, question)
        logits, scores = masks[:, 0].float(), scores[:, 0].float()
        wanted = torch.stack([target.any(0) for target in targets])
        there = wanted.flatten(1).any(1)
        shares = resized(wanted, (logits.shape[-2], logits.shape[-1]))
        scored = functional.binary_cross_entropy_with_logits(scores, there.float(), reduction="none")
        sums = (cross_entropy_each(logits, shares).sum(), dice_each(logits, shares).sum(), scored.sum())
        return self.weighted(torch.stack(sums), targets)

    def _features(self, pyramid: Pyramid) -> Float[Tensor, "n e h w"]:
        size = pyramid[0].shape[1:3]
        total: Tensor | None = None
        for layer, level in zip(self.levels, pyramid, strict=True):
            grid: Tensor = rearrange(layer(level), "n gh gw e -> n e gh gw")
            grid = functional.interpolate(grid, size, mode="bilinear", align_corners=False)
            total = grid if total is None else total + grid
        assert total is not None
        x: Tensor = rearrange(self.norm(rearrange(total, "n e h w -> n h w e")), "n h w e -> n e h w")
        for doubling in self.doublings:
            x = doubling(x)
        return x

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 16, "doublings": 1}


class FeatureDoubling(nn.Module):
    """Twice the rows and columns; a convolution beside a skip connection."""

    def __init__(self, width: int):
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.refine = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "n e h w"]) -> Float[Tensor, "n e h2 w2"]:
        x = functional.gelu(self.enlarge(x))
        return x + functional.gelu(self.refine(x))
