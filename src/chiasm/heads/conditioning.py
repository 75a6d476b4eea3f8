"""Alphabets that write what the image decoder is conditioned on: nothing of it is ever read."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from chiasm.heads import AnyAlphabet, ConditionedDecoder, DrawnValues, HeadContext, Sampling, WordLearner
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.tokenizers.spaces import WordIds


class Conditioning(AnyAlphabet):
    """What both kinds share: the loss is the decoder's, on the pixels of whole images."""

    sampled_by: ClassVar = frozenset({"guidance"})
    conditions: ClassVar = True

    def __init__(self, context: HeadContext):
        super().__init__()
        assert context.decoder is not None
        self._decoder = (context.decoder,)  # in a tuple, for its weights are the image decoder's

    @property
    def decoder(self) -> ConditionedDecoder:
        return self._decoder[0]


class StateConditioning(Conditioning):
    """Conditions made of the hidden states at an image's positions. Interface, built as
    `StateConditioning(context, symbols, *, options)`; symbols = 0.
    """

    @abstractmethod
    def image_losses(
        self,
        hidden: Float[Tensor, "n gh gw d"],
        pixels: Float[Tensor, "n 3 h w"],
        sources: Float[Tensor, "n 3 h w"] | None = None,
        words: Int[Tensor, "n k"] | None = None,
    ) -> dict[str, Loss]:
        """Losses by name of images. sources: those that they come of by a change; words: those before them."""

    @abstractmethod
    def draw(
        self,
        hidden: Float[Tensor, "r ... d"],
        sampling: Sampling,
        generators: Generators | None = None,
    ) -> DrawnValues:
        """Conditions, of r = n rows; or with guidance, of r = 2 n, pairs, "n 2 ... c"."""


class WordConditioning(Conditioning):
    """Words of the answer before an image, which are written as all text is. Interface, built as
    `WordConditioning(context, symbols)`; symbols = 0.
    """

    spaces: ClassVar = (WordIds,)

    @property
    def learner(self) -> WordLearner | None:
        """What the decoder can learn by where there are no hidden states; None = by nothing."""
        return None

    @abstractmethod
    def caption_losses(
        self,
        hidden: Float[Tensor, "n k d"],
        words: Int[Tensor, "n k"],
        pixels: Float[Tensor, "n 3 h w"],
        sources: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]:
        """Losses by name of images, drawn after their words. hidden: the states that predict the words."""
