"""Alphabets that score all values of a position at once."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.heads import Alphabet, DrawnValues, Sampling
from chiasm.heads.sampling import choose, guided
from chiasm.nn.generators import Generators
from chiasm.nn.losses import cross_entropy


class Categorical(Alphabet):
    """Interface. A loss and a draw from the logits of all values."""

    @abstractmethod
    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        """Of the values that hidden states predict, in float32."""

    def guided_logits(self, hidden: Float[Tensor, "r ... d"], guidance: float) -> Float[Tensor, "n ... k"]:
        return guided(self.logits(hidden), guidance)

    def loss(
        self,
        hidden: Float[Tensor, "m d"],
        values: Int[Tensor, " m"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> Float[Tensor, ""]:
        return cross_entropy(self.logits(hidden), values, weights)

    def draw(
        self,
        hidden: Float[Tensor, "r ... d"],
        sampling: Sampling,
        generators: Generators | None = None,
        *,
        never: int | None = None,
    ) -> DrawnValues:
        logits = self.guided_logits(hidden, sampling.guidance)
        if never is not None:
            logits = logits.index_fill(-1, torch.tensor([never], device=logits.device), -torch.inf)
        values = choose(logits, sampling, generators)
        return DrawnValues(values, logits.softmax(-1).gather(-1, values[..., None])[..., 0])
