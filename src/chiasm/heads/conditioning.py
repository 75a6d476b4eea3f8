"""Alphabets that write what the image decoder is conditioned on."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float, Shaped
from torch import Tensor

from chiasm.heads import Alphabet, ConditionedDecoder, HeadContext


class Conditioning(Alphabet):
    """Interface. The loss is the decoder's, on the pixels of whole images; what is written is never read."""

    sampled_by: ClassVar = frozenset({"guidance"})
    conditions: ClassVar = True

    def __init__(self, context: HeadContext):
        super().__init__()
        assert context.decoder is not None
        self._decoder = (context.decoder,)  # in a tuple, for its weights are the image decoder's

    @property
    def decoder(self) -> ConditionedDecoder:
        return self._decoder[0]

    def embed(self, values: Shaped[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        raise NotImplementedError("conditions are never read")

    def loss(
        self,
        hidden: Float[Tensor, "m d"],
        values: Shaped[Tensor, " m"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> Float[Tensor, ""]:
        raise NotImplementedError("conditions are learnt by whole images, by the decoder's losses")
