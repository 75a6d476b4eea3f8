"""What else than its pixels is asked of a picture that an image tokenizer makes in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.losses import Loss, objective
from chiasm.parts import Part


class Critic(Part, nn.Module, slot="critic"):
    """Interface. An image tokenizer takes any number of critics, one after another; only training asks them.

    What of a critic learns is learnt in the same step, from losses of its own that the tokenizer does not feel.
    """

    @abstractmethod
    def losses(
        self,
        made: Float[Tensor, "n 3 h w"],
        true: Float[Tensor, "n 3 h w"],
        error: Float[Tensor, ""],
        last: Float[Tensor, ...],
    ) -> dict[str, Loss]:
        """Losses by name, their terms one a picture.

        made, true: reconstructions and originals, in [0, 1]. error: the pixels' and earlier critics' loss.
        last: weight of the tokenizer's last layer.
        """


def criticised(
    critics: Iterable[nn.Module],
    made: Float[Tensor, "n 3 h w"],
    true: Float[Tensor, "n 3 h w"],
    reconstruction: Loss,
    last: Float[Tensor, ...],
) -> dict[str, Loss]:
    """The loss of the pixels, and those of all critics."""
    losses = {"reconstruction": reconstruction}
    for critic in critics:
        assert isinstance(critic, Critic)
        losses |= critic.losses(made, true, objective(losses), last)
    return losses
