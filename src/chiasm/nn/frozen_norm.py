"""Batch norm of networks that are taken as they are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class FrozenNorm(nn.BatchNorm2d):
    """Batch norm that uses its stored statistics always and never changes them."""

    def __init__(self, channels: int, epsilon: float):
        super().__init__(channels, eps=epsilon)

    def train(self, mode: bool = True) -> FrozenNorm:
        return super().train(False)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )
