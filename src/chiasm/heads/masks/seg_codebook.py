"""A codebook of segmentation tokens, some for each scale of the image, for each of several targets (PixelLM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.heads.masks.seg_token import FeatureDoubling
from chiasm.heads.segmentation import MaskContext, MaskHead, MaskPrediction, Pyramid
from chiasm.nn.losses import Loss
from chiasm.nn.mask_losses import dice_each, matched, resized
from chiasm.nn.masked_attention import mlp
from chiasm.nn.sine_positions import sine_positions
from chiasm.nn.two_way import TwoWayTransformer
from chiasm.parts.bounds import Count, Depth, Heads, Tokens, Weight, Width


class SegCodebook(MaskHead, name="seg_codebook"):
    """Tokens of a codebook, some for each level of the encoder, and a light decoder (PixelLM, arXiv 2312.02228).

    For each target the whole codebook stands behind the question. The hidden states of a level's tokens are joined
    into one; from the coarsest level on, it and the level's features look at each other, and their product is the
    mask at that scale, which tells the next finer level where to look: features are multiplied by 1 and the mask's
    share. The mask of a target is the sum of those of all scales, with learnt weights.

    Which target answers to which mask is decided by the least cost, since no words stand between the targets as
    they do in the original. Pixels that several targets claim weigh `refinement` times in the cross entropy.

    Args:
        tokens: of the codebook, for each level.
        targets: masks that can be written.
        width: channels of tokens and features.
        depth: layers in which a level's token and features look at each other.
        heads: of their attention.
        hidden: hidden width of their MLPs.
        doublings: how many times each level's rows and columns are doubled before the product.
        refinement: weight of pixels that several targets claim; 1 = as all others.
        mask_weight: of the cross entropy of masks.
        dice_weight: of their Dice loss.
        score_weight: of the cross entropy of whether a target is there.
    """

    def __init__(
        self,
        context: MaskContext,
        *,
        tokens: Tokens = 3,
        targets: Tokens = 4,
        width: Width = 256,
        depth: Depth = 1,
        heads: Heads = 8,
        hidden: Width = 1024,
        doublings: Count = 1,
        refinement: Weight = 2.0,
        mask_weight: Weight = 2.0,
        dice_weight: Weight = 0.5,
        score_weight: Weight = 1.0,
    ):
        super().__init__()
        if width % 4:
            raise RecipeError(
                f"mask head 'seg_codebook' has the width {width}; a multiple of 4 has places in it"
            )
        self.scales, self.targets, self.tokens = len(context.levels), targets, tokens
        self.most_masks = targets
        self.positions = targets * self.scales * tokens
        self.refinement = refinement
        self.mask_weight, self.dice_weight, self.score_weight = mask_weight, dice_weight, score_weight
        self.codebook = nn.Parameter(torch.randn(self.scales, tokens, context.width) * 0.02)
        self.target_embeddings = nn.Parameter(torch.randn(targets, context.width) * 0.02)
        self.join = nn.ModuleList(nn.Linear(tokens * context.width, width) for _ in context.levels)
        self.levels = nn.ModuleList(nn.Linear(each, width) for each in context.levels)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in context.levels)
        self.blocks = nn.ModuleList(
            TwoWayTransformer(width, depth=depth, heads=heads, hidden=hidden) for _ in context.levels
        )
        self.doublings = nn.ModuleList(
            nn.Sequential(*(FeatureDoubling(width) for _ in range(doublings))) for _ in context.levels
        )
        self.query = nn.ModuleList(mlp(width, width, width, depth=2) for _ in context.levels)
        self.shares = nn.Parameter(torch.zeros(self.scales))
        self.score = nn.Linear(self.scales * width, 1)
        self.scale = width**-0.5

    def embeddings(self) -> Float[Tensor, "q d"]:
        return rearrange(
            self.target_embeddings[:, None, None] + self.codebook,
            "targets scales tokens d -> (targets scales tokens) d",
        )

    def predict(
        self, hidden: Float[Tensor, "n q d"], pyramid: Pyramid, question: Float[Tensor, "n d"]
    ) -> MaskPrediction:
        joined = rearrange(
            hidden, "n (t l k) d -> l (n t) 1 (k d)", t=self.targets, l=self.scales, k=self.tokens
        )
        masks: list[Tensor] = []  # by scale, from the coarsest to the finest
        states = []
        for level in reversed(range(self.scales)):
            features = self.norms[level](self.levels[level](pyramid[level]))
            features = repeat(features, "n h w e -> (n t) h w e", t=self.targets)
            if masks:
                attended = functional.interpolate(masks[-1], features.shape[1:3], mode="bilinear")
                features = features * (1 + rearrange(attended.sigmoid(), "m 1 h w -> m h w 1"))
            mask, state = self._at_scale(level, self.join[level](joined[level]), features)
            masks.append(mask)
            states.append(state)
        size = masks[-1].shape[-2:]
        enlarged = [functional.interpolate(each, size, mode="bilinear") for each in masks]
        summed = sum(
            share * each for share, each in zip(self.shares.softmax(0).flip(0), enlarged, strict=True)
        )
        score = self.score(torch.cat(states, -1))
        return MaskPrediction(
            rearrange(summed, "(n t) 1 h w -> n t h w", t=self.targets),
            rearrange(score, "(n t) 1 -> n t", t=self.targets),
        )

    def _at_scale(
        self, level: int, token: Float[Tensor, "m 1 e"], features: Float[Tensor, "m h w e"]
    ) -> tuple[Float[Tensor, "m 1 h2 w2"], Float[Tensor, "m e"]]:
        """The mask of each target at one scale, and what its token has become."""
        height, width = features.shape[1:3]
        places = sine_positions(height, width, features.shape[-1], features.device).to(features.dtype)
        places = rearrange(places, "h w e -> (h w) e")
        state, attended = self.blocks[level](token, rearrange(features, "m h w e -> m (h w) e"), places)
        grid = self.doublings[level](rearrange(attended, "m (h w) e -> m e h w", h=height))
        query = self.query[level](state) * self.scale
        return torch.einsum("mqe,mehw->mqhw", query, grid), state[:, 0]

    def losses(
        self,
        hidden: Float[Tensor, "n q d"],
        pyramid: Pyramid,
        question: Float[Tensor, "n d"],
        targets: Sequence[Bool[Tensor, "m h w"]],
    ) -> dict[str, Loss]:
        masks, scores = self.predict(hidden, pyramid, question)
        sums = masks.new_zeros(3, dtype=torch.float32)
        for logits, score, target in zip(masks.float(), scores.float(), targets, strict=True):
            sums = sums + torch.stack(self._losses(logits, score, target))
        return self.weighted(sums, targets)

    def _losses(
        self, logits: Float[Tensor, "t h w"], score: Float[Tensor, " t"], target: Bool[Tensor, "m h w"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        wanted = resized(target, (logits.shape[-2], logits.shape[-1]))
        chosen, answered = matched(logits, wanted, cross_entropy=self.mask_weight, dice=self.dice_weight)
        there = torch.zeros_like(score).index_fill(0, chosen, 1.0)
        scored = functional.binary_cross_entropy_with_logits(score, there)
        ours, theirs = logits[chosen], wanted[answered]
        entropy = functional.binary_cross_entropy_with_logits(ours, theirs, reduction="none")
        refined = (entropy * claimed(ours, self.refinement)).mean((1, 2))
        return refined.sum(), dice_each(ours, theirs).sum(), scored

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"tokens": 2, "targets": 3, "width": 16, "heads": 2, "hidden": 16}


@torch.no_grad()
def claimed(logits: Float[Tensor, "t h w"], weight: float) -> Float[Tensor, "h w"]:
    """The weight of each pixel: `weight` where two targets or more claim it, else 1."""
    return torch.where((logits > 0).sum(0) >= 2, weight, 1.0)
