"""Contrastive, matching and captioning losses of a Q-Former."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange, reduce
from jaxtyping import Int
from torch import Tensor

from chiasm.connectors.qformer import QFormer
from chiasm.connectors.qformer_stage1 import Stage1
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss
from chiasm.objectives import Described, Objective, Setting
from chiasm.parts.bounds import Tokens, Width

WATCHED = 16  # images of a batch whose queries the health figures are computed from
SHARPEST, FLATTEST = 0.001, 0.5  # between which the temperature stays, as in LAVIS


class QFormerStage1(Objective, Indivisible, name="qformer_stage1"):
    """BLIP-2's first stage: a Q-Former learns with words, before a language model (arXiv 2301.12597, section 3.2).

    Queries and words share its blocks, for three losses: images and texts are contrasted, matched, and captions
    are generated. It begins with the weights of the model's connector, a `qformer`, and copies its queries and
    blocks back when the stage ends. Words are those of the model's text tokenizer.

    Args:
        shared: channels in which pictures and texts are compared.
        context: most tokens of a text, with the one that stands for the whole.
    """

    names: ClassVar = ("contrastive", "matching", "captioning")
    hands: ClassVar = ("connector",)

    def __init__(self, setting: Setting, *, shared: Width = 256, context: Tokens = 32):
        super().__init__()
        connector, encoder = setting.model.connector, setting.model.encoder
        if not isinstance(connector, QFormer) or encoder is None:
            actual = connector.name if connector is not None else None
            raise RecipeError(
                f"objective 'qformer_stage1' trains a connector 'qformer', but the model has {actual!r}"
            )
        if connector.spec.get("projected"):
            raise RecipeError(
                "objective 'qformer_stage1' trains a connector 'qformer' without 'projected' alone"
            )
        self.tokenizer, self.context = setting.model.language.tokenizer, context
        words = len(self.tokenizer)
        self.whole, begin, self.padding = words, words + 1, words + 2
        self.stage = Stage1(
            encoder.width,
            vocabulary=words + 3,
            context=context,
            shared=shared,
            begin=begin,
            padding=self.padding,
            **{key: value for key, value in connector.spec.items() if key not in ("type", "projected")},
        )
        self.stage.take_over(connector)

    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        if len(batch) < 2:
            raise RecipeError("objective 'qformer_stage1' needs wrong pairs; give its stage 2 rows or more")
        most_words = self.context - 2
        self.cut_texts = sum(len(self.tokenizer.encode_plain(text)) > most_words for text in batch.texts)
        grid = model.encode(batch.pixels)
        with torch.no_grad():
            queries = self.stage.read_images(rearrange(grid[:WATCHED], "n gh gw c -> n (gh gw) c"))
        self.observe(reduce(queries, "n q w -> n w", "mean"))
        return self.stage.losses(grid, self._ids(batch.texts).to(grid.device))

    def terms(self, batch: Described) -> dict[str, float]:
        words = float((self._ids(batch.texts)[:, 1:] != self.padding).sum())
        return {"contrastive": 2.0 * len(batch), "matching": 3.0 * len(batch), "captioning": words}

    def indivisible(self, *, ranks: bool, rows: int) -> str:
        return "objective 'qformer_stage1' compares every pair of a batch; give it more rows"

    @torch.no_grad()
    def after_step(self, model: Model) -> None:
        super().after_step(model)
        self.stage.temperature.clamp_(SHARPEST, FLATTEST)

    def hand_over(self, model: Model) -> None:
        assert isinstance(model.connector, QFormer)
        self.stage.hand_over(model.connector)

    def _ids(self, texts: Sequence[str]) -> Int[Tensor, "n t"]:
        """A token for the whole of each text, its words, and the end."""
        end = self.tokenizer.end
        rows = [[self.whole, *self.tokenizer.encode_plain(text)[: self.context - 2], end] for text in texts]
        longest = max(map(len, rows))
        return torch.tensor([row + [self.padding] * (longest - len(row)) for row in rows])

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"shared": 8, "context": 16}
