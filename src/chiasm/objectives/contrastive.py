"""Images and texts matched by a softmax over the batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.model import Model
from chiasm.objectives import Setting
from chiasm.objectives.two_towers import TextTower, TwoTowers
from chiasm.parts.bounds import Depth, Heads, Positive, Tokens, Width

SHARPEST = 100.0  # what the temperature may multiply cosines by (CLIP, section 2.5)


class Contrastive(TwoTowers, name="contrastive"):
    """CLIP: of all texts of a batch find the picture's own, and of all pictures the text's (arXiv 2103.00020).

    The negatives are those of one batch, on all processes.

    Args:
        width: channels in which pictures and texts are compared.
        text_width: of the text tower.
        text_depth: blocks of the text tower.
        text_heads: attention heads of the text tower.
        context: most tokens of a text.
        temperature: what cosines are divided by at first; learnt, and never below 0.01.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        width: Width = 512,
        text_width: Width = 512,
        text_depth: Depth = 12,
        text_heads: Heads = 8,
        context: Tokens = 77,
        temperature: Positive = 0.07,
    ):
        tower = TextTower(setting.model.language.tokenizer, text_width, text_depth, text_heads, context)
        super().__init__(setting, width, tower)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def terms_of(
        self, to_texts: Float[Tensor, "n m"], to_images: Float[Tensor, "n m"], own: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        scale = self.scale.clamp(max=math.log(SHARPEST)).exp()
        ways = [functional.cross_entropy(scale * way, own, reduction="none") for way in (to_texts, to_images)]
        return torch.stack(ways).mean(0)

    @torch.no_grad()
    def after_step(self, model: Model) -> None:
        super().after_step(model)
        self.scale.clamp_(max=math.log(SHARPEST))

    def health(self) -> dict[str, float]:
        return super().health() | {"sharpness": float(self.scale.detach().exp())}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 8, "text_width": 16, "text_depth": 1, "text_heads": 2}
