"""Crops of an image, and a slow copy as their teacher."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.distribution.collective import over_all_ranks
from chiasm.encoders import Encoder
from chiasm.model import Model
from chiasm.nn.losses import Loss
from chiasm.objectives import Described, Fixed, Objective, Setting
from chiasm.objectives.crops import random_crops, recoloured
from chiasm.parts.bounds import Count, Decay, Pixels, Positive, Share, Weight, Width
from chiasm.views import Size

LEAST_INFORMATION = 0.01  # of the greatest possible mutual information of teacher outputs and images


class SelfDistillation(Objective, name="self_distillation"):
    """DINO: predict from one crop what a slower copy of the encoder predicts from another (arXiv 2104.14294).

    The student sees two large crops and some small ones, the teacher, a moving average of the student, the large
    ones. The teacher's outputs are centred by their moving average and sharpened by a low temperature, without
    which both would collapse to one output for everything. The features of a crop are averaged.

    Args:
        outputs: of the head.
        hidden: width of the head's two hidden layers.
        bottleneck: normalised channels before the head's last layer, whose rows are normalised too.
        local_crops: small crops of a picture.
        local_size: their side in pixels.
        global_area: smallest and largest share of a picture's area in a large crop.
        local_area: the same of a small crop.
        colour: strength of the changes of colour; 1 is DINO's, 0 none.
        student_temperature: of the student's outputs.
        teacher_temperature: of the teacher's, at first and after the warm-up.
        warmup: share of the stage in which the teacher's temperature rises.
        center_momentum: of the average by which the teacher's outputs are centred; 1 leaves them as they are.
        momentum: of the teacher at first; it rises to 1 over half a cosine.
        freeze_last: share of the stage in which the head's last layer stays as it is.
    """

    names: ClassVar = ("distillation",)
    center: Tensor

    def __init__(
        self,
        setting: Setting,
        *,
        outputs: Width = 65536,
        hidden: Width = 2048,
        bottleneck: Width = 256,
        local_crops: Count = 8,
        local_size: Pixels = 96,
        global_area: tuple[Share, Share] = (0.4, 1.0),
        local_area: tuple[Share, Share] = (0.05, 0.4),
        colour: Weight = 1.0,
        student_temperature: Positive = 0.1,
        teacher_temperature: tuple[Positive, Positive] = (0.04, 0.07),
        warmup: Share = 0.1,
        center_momentum: Share = 0.9,
        momentum: Decay = 0.996,
        freeze_last: Share = 0.01,
    ):
        super().__init__()
        encoder = setting.model.encoder
        assert encoder is not None
        encoder.grid(local_size, local_size)  # a size it cannot take is an error now
        self.head = Head(encoder.width, hidden, bottleneck, outputs)
        self.teacher = Fixed(copy.deepcopy(encoder))
        self.teacher_head = Fixed(copy.deepcopy(self.head))
        self.register_buffer("center", torch.zeros(outputs))
        self.size, self.local_size, self.local_crops = setting.size, Size(local_size, local_size), local_crops
        self.global_area, self.local_area, self.colour = global_area, local_area, colour
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.warmup, self.freeze_last = warmup, freeze_last
        self.center_momentum, self.momentum = center_momentum, momentum
        self._teacher_logits: list[Float[Tensor, "m k"]] = []  # the teacher's outputs since the last step
        self._probabilities: Float[Tensor, "m k"] | None = None  # of the last batch

    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        assert model.encoder is not None
        large = torch.cat([self._large(batch.pixels, first) for first in (True, False)])
        targets = self._teach(large)
        features = [_pooled(model.encoder, large)]
        if self.local_crops:
            small = [
                random_crops(batch.pixels, self.local_size, self.local_area) for _ in range(self.local_crops)
            ]
            features.append(_pooled(model.encoder, recoloured(torch.cat(small), self.colour)))
        self.observe(features[0])
        logits = self.head(torch.cat(features), learns_last=self.done >= self.freeze_last)
        logs = functional.log_softmax(logits.float() / self.student_temperature, dim=1)
        terms = torch.stack(
            [
                -(target * log).sum(dim=1)
                for i, target in enumerate(targets.chunk(2))
                for j, log in enumerate(logs.split(len(batch)))
                if i != j
            ]
        )
        return {"distillation": Loss.of(terms.mean(dim=0))}

    @torch.no_grad()
    def after_step(self, model: Model) -> None:
        super().after_step(model)
        logits = torch.cat(self._teacher_logits)
        total, count = (
            over_all_ranks(logits.sum(dim=0)),
            over_all_ranks(logits.new_tensor(float(len(logits)))),
        )
        mean = total / count
        self.forget()
        self.center = self.center_momentum * self.center + (1 - self.center_momentum) * mean
        momentum = 1 - (1 - self.momentum) * (math.cos(math.pi * self.done) + 1) / 2
        assert model.encoder is not None
        for teacher, student in ((self.teacher.module, model.encoder), (self.teacher_head.module, self.head)):
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 1 - momentum)

    def forget(self) -> None:
        self._teacher_logits = []

    def is_dull(self) -> bool:
        return super().is_dull() or (
            self._probabilities is not None and self._information() < LEAST_INFORMATION
        )

    def health(self) -> dict[str, float]:
        if self._probabilities is None:
            return super().health()
        return super().health() | {"entropy": self._entropy(), "information": self._information()}

    @torch.no_grad()
    def _teach(self, large: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m k"]:
        logits = self.teacher_head(_pooled(self.teacher, large)).float()
        self._teacher_logits.append(logits)
        low, high = self.teacher_temperature
        temperature = low + (high - low) * min(1.0, self.done / max(self.warmup, 1e-9))
        self._probabilities = ((logits - self.center) / temperature).softmax(dim=1)
        return self._probabilities

    def _large(self, pixels: Float[Tensor, "n 3 h w"], first: bool) -> Float[Tensor, "n 3 h w"]:
        crops = random_crops(pixels, self.size, self.global_area)
        blurred, solarised = (1.0, 0.0) if first else (0.1, 0.2)
        return recoloured(crops, self.colour, blurred=blurred, solarised=solarised)

    def _entropy(self) -> float:
        """Of the teacher's outputs, as a share of the largest there is."""
        assert self._probabilities is not None
        return float(_entropies(self._probabilities).mean()) / math.log(self._probabilities.shape[1])

    def _information(self) -> float:
        """Mutual information of the teacher's outputs and the image, as a share of the greatest possible."""
        assert self._probabilities is not None
        information = _entropies(self._probabilities.mean(dim=0)) - _entropies(self._probabilities).mean()
        return float(information) / math.log(min(self._probabilities.shape))

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"outputs": 32, "hidden": 16, "bottleneck": 8, "local_crops": 2, "local_size": 16}


class Head(nn.Module):
    """Three layers with GELU, normalisation, and a last layer whose rows are normalised."""

    def __init__(self, width: int, hidden: int, bottleneck: int, outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.last = nn.Parameter(torch.randn(outputs, bottleneck) * 0.02)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "n c"], learns_last: bool = True) -> Float[Tensor, "n k"]:
        last = functional.normalize(self.last, dim=1)
        return functional.normalize(self.layers(x), dim=1) @ (last if learns_last else last.detach()).T


def _pooled(encoder: Encoder | Fixed, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
    return reduce(encoder(pixels), "n gh gw c -> n c", "mean")


def _entropies(chances: Float[Tensor, "... k"]) -> Float[Tensor, ...]:
    return -(chances * chances.clamp(min=1e-12).log()).sum(dim=-1)
