"""Images from which an image decoder learns alone, as the caches have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chiasm.data import Picture
from chiasm.data.clip import pixels
from chiasm.data.picture_reader import cached_targets
from chiasm.storage.cache import TensorCache
from chiasm.views import Size


@dataclass
class EncodedImages:
    """A batch of them: their targets, and their pixels or the decoder's latents of them."""

    targets: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, some: slice) -> EncodedImages:
        return EncodedImages(self.targets[some], self.images[some])

    def to(self, device: torch.device | str) -> EncodedImages:
        return EncodedImages(
            self.targets.to(device, non_blocking=True), self.images.to(device, non_blocking=True)
        )


class EncodedReader:
    """Reads them from the caches. latents: None = the decoder learns from pixels, which are read as ever."""

    def __init__(self, size: Size, targets: TensorCache, latents: TensorCache | None):
        self.size, self.targets, self.latents = size, targets, latents

    def read(self, pictures: Sequence[Picture]) -> EncodedImages:
        if self.latents is None:
            images = torch.stack([pixels(picture, self.size) for picture in pictures])
        else:
            images = cached_targets(self.latents, pictures)
        return EncodedImages(cached_targets(self.targets, pictures), images)
