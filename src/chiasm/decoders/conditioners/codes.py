"""Codes as the tokens of a denoiser."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from chiasm.decoders.conditioners import Conditioner, ConditionerContext
from chiasm.decoders.conditions import Condition
from chiasm.errors import ChiasmError, RecipeError
from chiasm.tokenizers.spaces import Codes


class CodeTokens(Conditioner, name="codes"):
    """An embedding of each code and of its position; a pooled vector, where one is read, is a projected mean.

    Of images with a varying number of codes, what stands behind the end is masked.
    """

    space: Codes

    def __init__(self, context: ConditionerContext):
        super().__init__()
        if not isinstance(context.space, Codes):
            raise RecipeError("conditioner 'codes' takes codes of a known number; nothing here makes any")
        self.space = context.space
        self.codes = nn.Embedding(self.space.size, context.token_width)
        self.positions = nn.Parameter(torch.randn(self.space.length, context.token_width) * 0.02)
        pooled = context.pooled_width
        self.pooled = nn.Linear(context.token_width, pooled) if pooled is not None else None

    def forward(self, target: Int[Tensor, "n gh gw"]) -> Condition:
        flat = self._checked(target)
        tokens = self.codes(flat) + self.positions
        mask = None
        if self.space.end is not None:
            ends = (flat == self.space.end).long()
            mask = ends.cumsum(1) - ends == 0
        if self.pooled is None:
            return Condition(tokens, mask)
        shares = torch.ones_like(tokens[..., :1]) if mask is None else mask[..., None].to(tokens.dtype)
        pooled = self.pooled((tokens * shares).sum(1) / shares.sum(1))
        return Condition(tokens, mask, {"text_embeds": pooled})

    def _checked(self, target: Int[Tensor, "n gh gw"]) -> Int[Tensor, "n k"]:
        if tuple(target.shape[1:]) != self.space.grid or target.is_floating_point():
            raise ChiasmError(
                f"conditioner 'codes' takes codes in a grid of {self.space.grid}, not "
                f"{str(target.dtype).removeprefix('torch.')} of shape {tuple(target.shape)}"
            )
        low, high = (int(each) for each in target.aminmax()) if target.numel() else (0, 0)
        if low < 0 or high >= self.codes.num_embeddings:
            raise ChiasmError(
                f"codes from {low} to {high} given to conditioner 'codes', which has {self.codes.num_embeddings}"
            )
        return rearrange(target, "n gh gw -> n (gh gw)")
