"""Words of the language model as the tokens of a denoiser, by a text encoder that learns with it."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from chiasm.decoders import TextCodec
from chiasm.decoders.conditioners import Conditioner, ConditionerContext
from chiasm.decoders.conditions import Condition
from chiasm.errors import ChiasmError, RecipeError
from chiasm.parts.bounds import Depth, Heads, Tokens, Width
from chiasm.tokenizers.spaces import WordIds


class EncodedWords(Conditioner, name="words"):
    """A text encoder of ours, learnt from scratch: a bidirectional transformer over the language model's own words.

    A denoiser that reads a pooled vector too is given a projection of the tokens' mean. What guidance leads away
    from is the reading of no words.

    Args:
        length: most words that are read.
        width: of the text encoder.
        depth: layers.
        heads: of attention; they must divide `width`.
    """

    space: WordIds
    mixtures = True

    def __init__(
        self,
        context: ConditionerContext,
        *,
        length: Tokens = 77,
        width: Width = 512,
        depth: Depth = 6,
        heads: Heads = 8,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(
                f"conditioner 'words' has the width {width}, which its {heads} heads do not divide"
            )
        self.space = context.words(self.name, length)
        self.words = nn.Embedding(self.space.size + 1, width)  # the last is the end
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        options: dict[str, Any] = {
            "dropout": 0.0,
            "activation": "gelu",
            "batch_first": True,
            "norm_first": True,
        }
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, **options) for _ in range(depth)
        )
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, context.token_width)
        pooled = context.pooled_width
        self.pooled = nn.Linear(width, pooled) if pooled is not None else None

    def forward(self, target: Shaped[Tensor, "n 1 k ..."]) -> Condition:
        mask = words_mask(target, self.space, self.name)
        return self._encoded(self._embedded(target), mask)

    def empty(self, condition: Condition) -> Condition:
        words = torch.full((len(condition.tokens), 1, self.space.length), self.space.size)
        return self(words.to(condition.tokens.device))

    def _embedded(self, target: Shaped[Tensor, "n 1 k ..."]) -> Float[Tensor, "n k w"]:
        if target.is_floating_point():
            return target[:, 0] @ self.words.weight.to(target.dtype)
        return self.words(target[:, 0])

    def _encoded(self, words: Float[Tensor, "n k w"], mask: Bool[Tensor, "n k"]) -> Condition:
        x = words + self.positions
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
        x = self.norm(x)
        if self.pooled is None:
            return Condition(self.output(x), mask)
        shares = mask[..., None].to(x.dtype)
        pooled = self.pooled((x * shares).sum(1) / shares.sum(1))
        return Condition(self.output(x), mask, {"text_embeds": pooled})

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"length": 48, "width": 16, "depth": 1, "heads": 2}


def words_mask(target: Shaped[Tensor, "n 1 k ..."], space: WordIds, conditioner: str) -> Bool[Tensor, "n k"]:
    """Where words stand, and the end behind them; raises ChiasmError for a target of another form."""
    shape = (1, space.length, space.size + 1) if target.is_floating_point() else (1, space.length)
    if tuple(target.shape[1:]) != shape:
        raise ChiasmError(
            f"conditioner {conditioner!r} takes words, (images, 1, {space.length}), not "
            f"{str(target.dtype).removeprefix('torch.')} of shape {tuple(target.shape)}"
        )
    ids: Int[Tensor, "n k"] = rearrange(
        target.argmax(-1) if target.is_floating_point() else target, "n 1 k -> n k"
    )
    low, high = (int(each) for each in ids.aminmax()) if ids.numel() else (0, 0)
    if low < 0 or high > space.size:
        raise ChiasmError(
            f"words from {low} to {high} given to conditioner {conditioner!r}, which has {space.size}"
        )
    ends = (ids == space.size).long()
    return ends.cumsum(1) - ends == 0


def written_out(codec: TextCodec, ids: Int[Tensor, "n k"], end: int) -> list[str]:
    """Words as text. end: the id that stands behind the last of them."""
    return [codec.decode([id for id in row if id != end]) for row in ids.tolist()]
