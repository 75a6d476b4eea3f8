"""Critics: further losses of the images that an image tokenizer reconstructs in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.nn.losses import Loss, objective
from chiasm.parts import Part


class Critic(Part, nn.Module, slot="critic"):
    """Interface. An image tokenizer takes any number of critics, in order; they are called in training only.

    A critic's own weights learn in the same step, from losses that have no gradient in the tokenizer.
    """

    @abstractmethod
    def losses(
        self,
        reconstructed: Float[Tensor, "n 3 h w"],
        original: Float[Tensor, "n 3 h w"],
        error: Float[Tensor, ""],
        last_weight: Float[Tensor, ...],
    ) -> dict[str, Loss]:
        """Losses by name, with one term per image.

        reconstructed, original: images in [0, 1]. error: loss of the pixels and of earlier critics.
        last_weight: of the tokenizer's last layer.
        """


def criticised(
    critics: Iterable[nn.Module],
    reconstructed: Float[Tensor, "n 3 h w"],
    original: Float[Tensor, "n 3 h w"],
    reconstruction: Loss,
    last_weight: Float[Tensor, ...],
) -> dict[str, Loss]:
    """The loss of the pixels, and those of all critics."""
    losses = {"reconstruction": reconstruction}
    for critic in critics:
        assert isinstance(critic, Critic)
        losses |= critic.losses(reconstructed, original, objective(losses), last_weight)
    return losses
