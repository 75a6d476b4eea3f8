"""What an image is generated after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Condition(NamedTuple):
    """What a denoiser reads beside the noisy image.

    tokens: that it attends to. mask: False where there is none; None = all are meant.
    added: further inputs, by diffusers' names (`text_embeds`: a pooled vector; `time_ids`: sizes in pixels), and
        `boxes` (n b 4: left, top, right, bottom in [0, 1]), `phrases` (n b p: what is in them) and `present` (n b:
        1 for a box, 0 for what fills up).
    source: latents of the image to change, concatenated to the noisy ones.
    gates: how far the layers that read boxes are open; 0 = as if there were none.
    """

    tokens: Float[Tensor, "n k d"]
    mask: Bool[Tensor, "n k"] | None = None
    added: dict[str, Tensor] | None = None
    source: Float[Tensor, "n c h w"] | None = None
    gates: float = 1.0

    @staticmethod
    def stacked(conditions: Sequence[Condition]) -> Condition:
        """The rows of several conditions, one behind another; all have the same inputs."""
        columns = zip(*(condition.flat() for condition in conditions), strict=True)
        return conditions[0].like([torch.cat(column) for column in columns])

    def where(self, chosen: Bool[Tensor, " n"], other: Condition) -> Condition:
        """The other's rows where they are chosen, else this condition's."""
        columns = zip(self.flat(), other.flat(), strict=True)
        return self.like(
            [torch.where(chosen.view(-1, *[1] * (own.ndim - 1)), its, own) for own, its in columns]
        )

    def with_zero_source(self) -> Condition:
        """This condition with no image to change."""
        assert self.source is not None
        return self._replace(source=torch.zeros_like(self.source))

    def flat(self) -> list[Tensor]:
        """All inputs that there are, in a fixed order."""
        added = [self.added[name] for name in sorted(self.added)] if self.added is not None else []
        return [each for each in (self.tokens, self.mask, *added, self.source) if each is not None]

    def like(self, inputs: Sequence[Tensor]) -> Condition:
        """The condition with these inputs in the place of its own (`flat`)."""
        remaining = iter(inputs)
        tokens = next(remaining)
        mask = next(remaining) if self.mask is not None else None
        added = {name: next(remaining) for name in sorted(self.added)} if self.added is not None else None
        source = next(remaining) if self.source is not None else None
        return Condition(tokens, mask, added, source, self.gates)
