"""Vectors as the tokens of a denoiser: as they are, or projected."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.decoders.conditioners import Conditioner, ConditionerContext
from chiasm.decoders.conditions import Condition
from chiasm.errors import ChiasmError, RecipeError
from chiasm.parts.bounds import Count
from chiasm.tokenizers.spaces import Vectors

ANY = (0, 0)  # the grid of any number of vectors


class VectorTokens(Conditioner, name="vectors"):
    """The vectors themselves, as in Emu2 (arXiv 2312.13286): they are as wide as the denoiser's tokens.

    A denoiser that reads a pooled vector too is given their mean.

    Args:
        empty: how many vectors, kept with the weights, stand for no target: what the text encoder of a diffusion
            model makes of an empty prompt (NExT-GPT, arXiv 2309.05519); 0 = zeros stand for it.
    """

    space: Vectors
    empty_tokens: Tensor

    def __init__(self, context: ConditionerContext, *, empty: Count = 0):
        super().__init__()
        space = context.space or Vectors(ANY, context.token_width)
        if not isinstance(space, Vectors):
            raise RecipeError(
                "conditioner 'vectors' takes vectors, but the targets are codes; take conditioner 'codes'"
            )
        for name, width in (("tokens", context.token_width), ("pooled vector", context.pooled_width)):
            if width not in (None, space.width):
                raise RecipeError(
                    f"conditioner 'vectors': the targets have {space.width} channels, but the denoiser's {name} "
                    f"{width} (Stable Diffusion 1.5 has 768, 2 has 1024); take conditioner 'linear', or another "
                    "denoiser"
                )
        self.space, self.pools, self.empties = space, context.pooled_width is not None, empty
        if empty:
            self.register_buffer("empty_tokens", torch.zeros(empty, space.width))

    def forward(self, target: Float[Tensor, "n gh gw c"]) -> Condition:
        tokens = vectors_in_row(target, self.space.width, self.name)
        return Condition(tokens, added={"text_embeds": tokens.mean(1)} if self.pools else None)

    def empty(self, condition: Condition) -> Condition:
        zeros = super().empty(condition)
        if not self.empties:
            return zeros
        if condition.tokens.shape[1] != self.empties:
            raise ChiasmError(
                f"conditioner 'vectors' has {self.empties} vectors for no target, but targets have "
                f"{condition.tokens.shape[1]}; guidance needs as many"
            )
        return zeros._replace(tokens=self.empty_tokens.to(condition.tokens.dtype).expand_as(condition.tokens))


class LinearTokens(Conditioner, name="linear"):
    """The vectors projected to the width of the denoiser's tokens, as in DreamLLM (arXiv 2309.11499).

    A denoiser that reads a pooled vector too is given a projection of their mean.

    Args:
        bias: the projections have biases.
        places: add a learnt vector of its place to every token. Features of a convolutional network hardly say
            where they stand.
    """

    space: Vectors

    def __init__(self, context: ConditionerContext, *, bias: bool = True, places: bool = False):
        super().__init__()
        if not isinstance(context.space, Vectors):
            raise RecipeError(
                "conditioner 'linear' takes vectors whose width is known; nothing here makes any"
            )
        self.space = context.space
        self.tokens = nn.Linear(self.space.width, context.token_width, bias=bias)
        if places and not self.space.length:
            raise RecipeError(
                "conditioner 'linear' adds places to vectors whose number is known; here it is not, so leave "
                "`places` out"
            )
        self.places = (
            nn.Parameter(0.02 * torch.randn(self.space.length, context.token_width)) if places else None
        )
        pooled = context.pooled_width
        self.pooled = nn.Linear(self.space.width, pooled, bias=bias) if pooled is not None else None

    def forward(self, target: Float[Tensor, "n gh gw c"]) -> Condition:
        vectors = vectors_in_row(target, self.space.width, self.name)
        added = {"text_embeds": self.pooled(vectors.mean(1))} if self.pooled is not None else None
        tokens = self.tokens(vectors)
        return Condition(tokens if self.places is None else tokens + self.places, added=added)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"bias": False}


def vectors_in_row(target: Tensor, width: int, conditioner: str) -> Float[Tensor, "n k c"]:
    """The vectors of each target, row by row; raises ChiasmError for a target of another kind or width."""
    if target.ndim != 4 or not target.is_floating_point() or target.shape[-1] != width:
        raise ChiasmError(
            f"conditioner {conditioner!r} takes vectors, (images, rows, columns, {width}), not "
            f"{str(target.dtype).removeprefix('torch.')} of shape {tuple(target.shape)}"
        )
    return rearrange(target, "n gh gw c -> n (gh gw) c")
