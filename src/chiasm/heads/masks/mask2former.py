"""PSALM's mask head: queries that pass through the language model and are matched with masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.heads.segmentation import MaskContext, MaskHead, MaskPrediction, Pyramid
from chiasm.nn.losses import Loss
from chiasm.nn.mask_losses import cross_entropy_each, dice_each, matched, resized
from chiasm.nn.masked_attention import LEVELS, MaskedDecoder, QueryMasks, mlp
from chiasm.nn.pixel_decoder import PixelDecoder
from chiasm.parts.bounds import Count, Depth, Heads, Tokens, Weight, Width

Condition = Literal["sentence", "classes", "regions"]


class Scored(NamedTuple):
    """What a layer of the decoder proposes: masks, and the score of each for every condition, by kind."""

    masks: Float[Tensor, "n q h w"]
    scores: dict[str, Float[Tensor, "n q k"]]


class Mask2Former(MaskHead, name="mask2former"):
    """Mask queries read by the language model, then Mask2Former's decoders (PSALM, arXiv 2403.14598).

    The queries' hidden states look at the image within their masks, layer after layer, over levels that a pixel
    decoder with deformable attention makes of the encoder's pyramid. The score of a mask is the product of its
    query and a condition: the mean of the hidden states of a sentence, of a class name, or of a region.

    In training each mask is matched with the one query that costs least; that query's mask learns by cross entropy
    and Dice, and the scores of all by cross entropy, behind every layer. All cells of a mask count, where the
    original draws 12,544 points, so that nothing is random.

    Args:
        queries: masks that can be proposed.
        width: channels of queries and levels.
        mask_width: channels of the features of which masks are made.
        pixel_width: channels of the pixel decoder.
        heads: attention heads of both decoders.
        hidden: hidden width of the queries' MLPs.
        depth: layers of the queries' decoder.
        pixel_hidden: hidden width of the pixel decoder's MLPs.
        pixel_depth: layers of the pixel decoder.
        attended: how many levels of the pyramid, from the coarsest on, deformable attention joins.
        fused: how many finer levels are added, from the finest on.
        prenorm: LayerNorms stand before attention and MLP instead of behind.
        normed: a LayerNorm and an MLP on the condition of sentences and classes, too.
        projected: an MLP on the queries, too, for each kind of condition.
        conditions: kinds of conditions there are layers for; questions are sentences.
        mask_weight: of the cross entropy of masks, in the loss and in matching.
        dice_weight: of their Dice loss, likewise.
        score_weight: of the cross entropy of scores.
    """

    def __init__(
        self,
        context: MaskContext,
        *,
        queries: Tokens = 100,
        width: Width = 256,
        mask_width: Width = 256,
        pixel_width: Width = 256,
        heads: Heads = 8,
        hidden: Width = 2048,
        depth: Depth = 9,
        pixel_hidden: Width = 1024,
        pixel_depth: Depth = 6,
        attended: Depth = 3,
        fused: Count = 1,
        prenorm: bool = False,
        normed: bool = False,
        projected: bool = True,
        conditions: list[Condition] = ["sentence"],  # noqa: B006  read only
        mask_weight: Weight = 5.0,
        dice_weight: Weight = 5.0,
        score_weight: Weight = 2.0,
    ):
        super().__init__()
        if attended + fused < LEVELS:
            raise RecipeError(
                f"mask head 'mask2former' looks at {LEVELS} levels, but has {attended} attended and {fused} fused"
            )
        if not conditions or len(set(conditions)) != len(conditions):
            raise RecipeError(f"mask head 'mask2former': conditions are {conditions}; name each kind once")
        self.positions = self.most_masks = queries
        self.mask_weight, self.dice_weight, self.score_weight = mask_weight, dice_weight, score_weight
        self.queries = nn.Parameter(torch.randn(queries, context.width) * 0.02)
        self.project = nn.Linear(context.width, width)
        self.pixel_decoder = PixelDecoder(
            context.levels,
            attended=attended,
            fused=fused,
            width=pixel_width,
            mask_width=mask_width,
            heads=heads,
            hidden=pixel_hidden,
            depth=pixel_depth,
        )
        self.decoder = MaskedDecoder(
            width,
            pixel_width,
            mask_width,
            queries=queries,
            heads=heads,
            hidden=hidden,
            depth=depth,
            prenorm=prenorm,
        )
        self.conditions = nn.ModuleDict(
            {
                kind: Matching(context.width, width, normed and kind != "regions", projected)
                for kind in conditions
            }
        )

    def embeddings(self) -> Float[Tensor, "q d"]:
        return self.queries

    def propose(
        self,
        hidden: Float[Tensor, "n q d"],
        pyramid: Pyramid,
        conditions: Mapping[str, Float[Tensor, "n k d"]],
    ) -> list[Scored]:
        """Masks and scores behind each layer. conditions: hidden states by kind, one for each condition."""
        features, levels = self.pixel_decoder(pyramid)
        layers: list[QueryMasks] = self.decoder(self.project(hidden), features, levels)
        return [
            Scored(
                each.logits,
                {
                    kind: self.conditions[kind](each.queries, condition)
                    for kind, condition in conditions.items()
                },
            )
            for each in layers
        ]

    def predict(
        self,
        hidden: Float[Tensor, "n q d"],
        pyramid: Pyramid,
        question: Float[Tensor, "n d"],
    ) -> MaskPrediction:
        last = self.propose(hidden, pyramid, {"sentence": question[:, None]})[-1]
        return MaskPrediction(last.masks, last.scores["sentence"][..., 0])

    def losses(
        self,
        hidden: Float[Tensor, "n q d"],
        pyramid: Pyramid,
        question: Float[Tensor, "n d"],
        targets: Sequence[Bool[Tensor, "m h w"]],
    ) -> dict[str, Loss]:
        """Each layer's losses are summed, as if each had the weight 1."""
        layers = self.propose(hidden, pyramid, {"sentence": question[:, None]})
        sums = hidden.new_zeros(3, dtype=torch.float32)
        for layer in layers:
            masks, scores = layer.masks.float(), layer.scores["sentence"][..., 0].float()
            for proposed, score, target in zip(masks, scores, targets, strict=True):
                sums = sums + torch.stack(self._losses(proposed, score, target))
        return self.weighted(sums, targets)

    def _losses(
        self,
        proposed: Float[Tensor, "q h w"],
        score: Float[Tensor, " q"],
        target: Bool[Tensor, "m h w"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy and Dice of the matched masks, and the cross entropy of the scores."""
        wanted = resized(target, (proposed.shape[-2], proposed.shape[-1]))
        chosen, answered = matched(proposed, wanted, cross_entropy=self.mask_weight, dice=self.dice_weight)
        hits = torch.zeros_like(score).index_fill(0, chosen, 1.0)
        # A mask weighs as much as all queries without one, as in the original.
        weight = score.new_tensor((len(score) - len(chosen)) / max(len(chosen), 1)).clamp(min=1e-6)
        scored = functional.binary_cross_entropy_with_logits(score, hits, pos_weight=weight)
        pairs = proposed[chosen], wanted[answered]
        return cross_entropy_each(*pairs).sum(), dice_each(*pairs).sum(), scored

    @classmethod
    def example(cls) -> dict[str, Any]:
        small = {"width": 32, "mask_width": 16, "pixel_width": 32, "heads": 2, "hidden": 32}
        depths = {"depth": 2, "pixel_hidden": 32, "pixel_depth": 1, "attended": 2}
        return {"queries": 3, **small, **depths}

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        tower = {"width_of_patches": 8, "depths": [1, 1, 1], "heads": [1, 2, 2], "window": 3}
        return {"encoder": {"type": "swin", **tower, "mlp_ratio": 2.0, "levels": "all"}}


class Matching(nn.Module):
    """Scores of queries for conditions: products of both."""

    def __init__(self, in_width: int, width: int, normed: bool, projected: bool):
        super().__init__()
        self.project = nn.Linear(in_width, width)
        self.norm = nn.LayerNorm(width) if normed else nn.Identity()
        self.condition = mlp(width, width, width, depth=2) if normed else nn.Identity()
        self.query = mlp(width, width, width, depth=2) if projected else nn.Identity()

    def forward(
        self, queries: Float[Tensor, "n q e"], condition: Float[Tensor, "n k d"]
    ) -> Float[Tensor, "n q k"]:
        return torch.einsum(
            "nqe,nke->nqk", self.query(queries), self.condition(self.norm(self.project(condition)))
        )
