"""How many loss terms the images of a batch have, before any is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from chiasm.heads import Order
from chiasm.model import Model
from chiasm.sequence import WrittenImages
from chiasm.tokenizers.spaces import Codes


class ImageTerms:
    """Counts the loss terms of an image head: by its own word, or else as many an image as a blank one has."""

    def __init__(self, model: Model, head: Order):
        self.model, self.head = model, head
        self._per_image, self._per_orphan = (self._of_blank(orphan) for orphan in (False, True))

    @property
    def names(self) -> set[str]:
        return set(self._per_image)

    def of(self, written: WrittenImages, orphans: Tensor) -> dict[str, float]:
        """Numbers of terms by name. orphans: which of the images have nothing before them."""
        terms = self.head.terms(self.model.targets(written), orphans)
        if terms is not None:
            return terms
        orphan_count, led_count = int(orphans.sum()), int((~orphans).sum())
        return {
            name: led_count * each + orphan_count * self._per_orphan[name]
            for name, each in self._per_image.items()
        }

    def _of_blank(self, orphan: bool) -> dict[str, float]:
        device = self.model.device
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            span = self.head.prepare(self._blank().to(device))
            if orphan:
                span = span._replace(orphans=torch.ones(1, dtype=torch.bool, device=device))
            if self.model.contract.changes_images:
                span = span._replace(sources=self._blank().to(device))
            words = self.head.layout().words
            if words:
                span = span._replace(words=torch.zeros(1, words, dtype=torch.long, device=device))
            count = len(self.head.layout().rows) or words
            hidden = torch.zeros(1, count, self.model.language.width, device=device)
            return {name: float(loss.count) for name, loss in self.head.losses(hidden, span).items()}

    def _blank(self) -> Tensor:
        """A target of one image."""
        space = self.head.space
        if self.model.conditions:
            assert self.model.image_decoder is not None
            return torch.zeros(1, 3, self.model.image_decoder.size, self.model.image_decoder.size)
        if isinstance(space, Codes):
            return torch.zeros(1, *space.grid, dtype=torch.long)
        return torch.zeros(1, *space.grid, space.width)
