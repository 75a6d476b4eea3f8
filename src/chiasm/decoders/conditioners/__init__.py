"""From a target to what a denoiser is conditioned on."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chiasm.decoders.conditions import Condition
from chiasm.parts import Part
from chiasm.tokenizers.spaces import Space


@dataclass(frozen=True)
class ConditionerContext:
    """What a conditioner is built with.

    space: of the targets; None = of whatever it takes. token_width: of the tokens that the denoiser attends to.
    pooled_width: of the pooled vector that it reads too; None = it reads none.
    """

    space: Space | None
    token_width: int
    pooled_width: int | None = None


class Conditioner(Part, nn.Module, slot="conditioner"):
    """Interface. Built as `Conditioner(context, *, options)`.

    space: of the targets that it takes; of vectors, without a grid where any number of them will do.
    """

    space: Space

    @abstractmethod
    def forward(self, target: Tensor) -> Condition:
        """The condition of targets, with the pooled vector as `text_embeds` where the denoiser reads one."""

    def empty(self, condition: Condition) -> Condition:
        """What guidance leads away from, of the shape of `condition`: zeros, where nothing else is learnt."""
        added = {name: torch.zeros_like(each) for name, each in (condition.added or {}).items()}
        return condition._replace(tokens=torch.zeros_like(condition.tokens), added=added or None)
