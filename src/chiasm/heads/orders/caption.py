"""Words before the image: the baseline of a caption, after which a diffusion model draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from chiasm import parts
from chiasm.errors import ChiasmError
from chiasm.heads import (
    Ask,
    DrawingState,
    HeadContext,
    Order,
    Sampling,
    Span,
    SpanLayout,
    WordLearner,
    Writing,
    raster,
)
from chiasm.heads.conditioning import WordConditioning
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.tokenizers.spaces import Space, WordIds


class Caption(Order, name="caption"):
    """Words before the image, in full view: the language model writes what shall be seen as a part of its answer,
    and the image decoder draws after these words alone (the baseline to which NExT-GPT, arXiv 2309.05519, and
    others compare themselves).

    The words are those of the answer before the image, since its beginning or its last image; as many as the
    decoder's conditioner reads, of more the last. In the image's place stands one learnt vector, so that what
    follows knows that it was drawn.

    Args:
        alphabet: what the decoder is conditioned on: the words, with or without a way for its gradient to the
            language model.
    """

    spaces: ClassVar = (WordIds,)
    reads_codes: ClassVar[bool] = False
    alphabet: WordConditioning

    def __init__(self, context: HeadContext, *, alphabet: WordConditioning):
        super().__init__()
        self.alphabet, self.space = alphabet, context.words
        self.unconditional = 0.0  # guidance leads away from no words at all, within the decoder
        self.image = nn.Parameter(torch.randn(1, context.width) * 0.02)

    @classmethod
    def symbols(cls, space: Space) -> int:
        return 0

    @property
    def word_learner(self) -> WordLearner | None:
        return self.alphabet.learner

    def layout(self) -> SpanLayout:
        return SpanLayout((True,), (True,), (), raster(1, 1), words=self.space.length)

    def prepare(self, target: Shaped[Tensor, "n ..."]) -> Span:
        """The image's place; its pixels are for the decoder."""
        return Span(self.image.expand(len(target), 1, -1), target)

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        """The decoder's; the words are learnt as all words of the answer are."""
        assert span.words is not None
        return self.alphabet.caption_losses(hidden, span.words, span.targets, span.sources)

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Read the place of images whose words, their targets, are written already (`progress`)."""
        if progress is None or progress.values is None:
            raise ChiasmError("order 'caption' draws after words, but there are none yet")
        yield Ask(self.image.expand(len(start), 1, -1))
        return progress.values

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"alphabet": {"type": "words"}}

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        decoder = parts.lookup("image_decoder", "diffusion")
        conditioner = parts.lookup("conditioner", "words")
        inner = {"type": conditioner.name, **conditioner.example()}
        spec: Mapping[str, Any] = {"type": decoder.name, **decoder.example(), "conditioner": inner}
        return {"image_tokenizer": None, "image_decoder": dict(spec)}  # type: ignore[dict-item]
