"""What the image decoder is conditioned on, learnt by the decoder's own loss."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm import parts
from chiasm.heads import DrawnValues, HeadContext, Sampling
from chiasm.heads.conditioning import StateConditioning
from chiasm.heads.projection import projection
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Count
from chiasm.tokenizers.spaces import Vectors


class Conditions(StateConditioning, name="condition"):
    """Hidden states, projected, are what the image decoder is conditioned on (DreamLLM, arXiv 2309.11499;
    MetaQueries, 2504.06256).

    There is no image tokenizer: the loss is the decoder's on the image's pixels, and its gradient flows through the
    decoder, frozen or not, to the language model. With guidance the decoder guides between what follows the prompt
    and what follows the empty one.

    Args:
        depth: linear layers from a hidden state to a condition, GELU between them; 0 = the hidden state is it.
        bias: the linear layers have biases.
    """

    spaces: ClassVar = (Vectors,)
    pairs = True

    def __init__(self, context: HeadContext, symbols: int, *, depth: Count = 1, bias: bool = False):
        super().__init__(context)
        self.output = projection(context.width, context.vectors.width, depth, bias, f"alphabet {self.name!r}")

    def image_losses(
        self,
        hidden: Float[Tensor, "n gh gw d"],
        pixels: Float[Tensor, "n 3 h w"],
        sources: Float[Tensor, "n 3 h w"] | None = None,
        words: Int[Tensor, "n k"] | None = None,
    ) -> dict[str, Loss]:
        conditions = self.output(hidden)
        losses = self.decoder.losses(conditions, pixels, source=sources)
        return losses if words is None else losses | self.decoder.caption_losses(conditions, words)

    def draw(
        self,
        hidden: Float[Tensor, "r ... d"],
        sampling: Sampling,
        generators: Generators | None = None,
    ) -> DrawnValues:
        """Nothing is drawn at random."""
        conditions = self.output(hidden)
        if sampling.guidance == 1:
            return DrawnValues(conditions)
        return DrawnValues(torch.stack(conditions.chunk(2), 1))

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        decoder = parts.lookup("image_decoder", "diffusion")
        spec = {"type": decoder.name, **decoder.example(), "conditioner": {"type": "vectors"}}
        return {"image_tokenizer": None, "image_decoder": spec}  # type: ignore[dict-item]
