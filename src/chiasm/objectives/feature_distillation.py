"""Features of a teacher, learnt patch by patch."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.encoders import Encoder
from chiasm.model import Model
from chiasm.nn.losses import Loss
from chiasm.objectives import Described, Fixed, Objective, Setting
from chiasm.parts.bounds import Positive


class FeatureDistillation(Objective, name="feature_distillation"):
    """GVT: the features of a frozen teacher, patch by patch (arXiv 2305.12223, by arXiv 2205.14141).

    The teacher's features are whitened by a LayerNorm without scales and shifts; a linear layer makes them of the
    student's. A teacher with another grid is interpolated. The loss is the smooth L1 distance.

    Args:
        teacher: an encoder with its options; it sees the same pixels.
        beta: distance from which the loss grows linearly.
    """

    names: ClassVar = ("features",)

    def __init__(self, setting: Setting, *, teacher: Encoder, beta: Positive = 2.0):
        super().__init__()
        assert setting.model.encoder is not None
        teacher.grid(*setting.size)  # a size it cannot take is an error now
        self.teacher, self.beta = Fixed(teacher), beta
        self.out = nn.Linear(setting.model.encoder.width, teacher.width)

    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        grid = model.encode(batch.pixels)
        self.observe(reduce(grid, "n gh gw c -> n c", "mean"))
        patches = rearrange(grid, "n gh gw c -> n (gh gw) c")
        assert model.encoder is not None
        rows, columns = model.encoder.patches(*batch.pixels.shape[-2:])
        features = self.out(patches[:, -rows * columns :]).float()
        targets = self._targets(batch.pixels, rows, columns)
        terms = functional.smooth_l1_loss(features, targets, reduction="none", beta=self.beta)
        return {"features": Loss.of(reduce(terms, "n s c -> n", "mean"))}

    @torch.no_grad()
    def _targets(self, pixels: Float[Tensor, "n 3 h w"], rows: int, columns: int) -> Float[Tensor, "n s c"]:
        teacher = self.teacher.module
        assert isinstance(teacher, Encoder)
        high, wide = teacher.patches(*pixels.shape[-2:])
        taught = rearrange(self.teacher(pixels).float(), "n gh gw c -> n (gh gw) c")[:, -high * wide :]
        taught = functional.layer_norm(taught, taught.shape[-1:])
        if (high, wide) == (rows, columns):
            return taught
        channels = rearrange(taught, "n (gh gw) c -> n c gh gw", gh=high)
        channels = functional.interpolate(channels, (rows, columns), mode="bilinear", align_corners=False)
        return rearrange(channels, "n c gh gw -> n (gh gw) c")

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"teacher": {"type": "patches", "patch_size": 4}}
