"""Whether the codebook of an image tokenizer collapses in training: the commonest way in which one fails."""

from __future__ import annotations

import math

from chiasm.tokenizers import ImageTokenizer

LEAST_USE = 0.05  # share of the codes that could have been used
PATIENCE = 100  # steps in a row below it that are called a collapse


class CodebookWatch:
    """Follows a tokenizer's health from step to step; a run that goes on begins to count anew."""

    def __init__(self, tokenizer: ImageTokenizer):
        self.tokenizer = tokenizer
        self._low = 0  # steps in a row with too few codes in use
        self._use = 1.0

    def observe(self, images: int) -> None:
        """After a step on so many images."""
        uses = [value for name, value in self.tokenizer.health().items() if name.startswith("codebook_use")]
        if not uses:  # the codes have not begun yet
            self._low = 0
            return
        self._use = min(uses)
        self._low = self._low + 1 if self._use < LEAST_USE * self._reach(images) else 0

    def warning(self) -> str | None:
        """A sentence once too few codes have been in use for some time."""
        if self._low < PATIENCE:
            return None
        size = self.tokenizer.codebook_size
        return (
            f"image_tokenizer {self.tokenizer.name!r} has collapsed: for {PATIENCE} steps or more only "
            f"{self._use:.1%} of its {size:,} codes have been in use; take a smaller codebook, a lower learning "
            "rate, or a tokenizer that revives its codes (revive_after)"
        )

    def _reach(self, images: int) -> float:
        """The share of the codebook that could be used within the patience, if every code were another."""
        return min(1.0, PATIENCE * images * math.prod(self.tokenizer.grid) / self.tokenizer.codebook_size)
