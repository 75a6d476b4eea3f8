"""Images and texts matched pair by pair."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.objectives import Setting
from chiasm.objectives.two_towers import TextTower, TwoTowers
from chiasm.parts.bounds import Depth, Heads, Positive, Tokens, Width


class Sigmoid(TwoTowers, name="sigmoid"):
    """SigLIP: whether a text belongs to an image, for every pair of a batch (arXiv 2303.15343).

    The negatives are those of one batch, on all processes.

    Args:
        width: channels in which pictures and texts are compared.
        text_width: of the text tower.
        text_depth: blocks of the text tower.
        text_heads: attention heads of the text tower.
        context: most tokens of a text.
        sharpness: what cosines are multiplied by at first; learnt (t, as its logarithm).
        bias: what is then added at first, for most pairs do not belong together; learnt (b).
    """

    def __init__(
        self,
        setting: Setting,
        *,
        width: Width = 768,
        text_width: Width = 768,
        text_depth: Depth = 12,
        text_heads: Heads = 12,
        context: Tokens = 64,
        sharpness: Positive = 10.0,
        bias: float = -10.0,
    ):
        tower = TextTower(setting.model.language.tokenizer, text_width, text_depth, text_heads, context)
        super().__init__(setting, width, tower)
        self.scale = nn.Parameter(torch.tensor(math.log(sharpness)))
        self.bias = nn.Parameter(torch.tensor(bias))

    def terms_of(
        self, to_texts: Float[Tensor, "n m"], to_images: Float[Tensor, "n m"], own: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        signs = 2 * functional.one_hot(own, to_texts.shape[1]) - 1
        return -functional.logsigmoid(signs * (self.scale.exp() * to_texts + self.bias)).sum(dim=1)

    def health(self) -> dict[str, float]:
        return super().health() | {"sharpness": float(self.scale.detach().exp())}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 8, "text_width": 16, "text_depth": 1, "text_heads": 2}
