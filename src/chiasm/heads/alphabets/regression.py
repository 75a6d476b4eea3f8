"""A vector, learnt by its distance."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from chiasm.heads import Alphabet, DrawnValues, HeadContext, Sampling
from chiasm.heads.projection import example_tokenizer, projection
from chiasm.heads.sampling import guided
from chiasm.nn.generators import Generators
from chiasm.parts.bounds import Count
from chiasm.tokenizers.spaces import Vectors


class Regression(Alphabet, name="regression"):
    """A vector that is predicted as it is (Emu2, arXiv 2312.13286; SEED-X, 2404.14396).

    What may follow in many ways is predicted as the mean of them. Nothing is drawn at random, so that there is
    no temperature.

    Args:
        loss: mse, the mean squared error of a vector's numbers, or cosine, 1 less its cosine with the true one.
        depth: linear layers from a hidden state to a vector, GELU between them; 0 = the hidden state is the vector.
        bias: the linear layers, also the one that embeds vectors which are read, have biases.
        guides: what guidance acts on: the vectors; or the decoder, which then leads away from what the model draws
            after the empty prompt, as in Emu2.
    """

    spaces: ClassVar = (Vectors,)
    sampled_by: ClassVar = frozenset({"guidance"})

    def __init__(
        self,
        context: HeadContext,
        symbols: int,
        *,
        loss: Literal["mse", "cosine"] = "mse",
        depth: Count = 1,
        bias: bool = False,
        guides: Literal["vectors", "decoder"] = "vectors",
    ):
        super().__init__()
        self.distance, self.pairs = loss, guides == "decoder"
        width = context.vectors.width
        self.input = nn.Linear(width, context.width, bias=bias) if symbols else None
        self.output = projection(context.width, width, depth, bias, f"alphabet {self.name!r}")

    def embed(self, values: Float[Tensor, "*s c"]) -> Float[Tensor, "*s d"]:
        assert self.input is not None
        return self.input(values)

    def loss(
        self,
        hidden: Float[Tensor, "m d"],
        values: Float[Tensor, "m c"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> Float[Tensor, ""]:
        predicted, values = self.output(hidden).float(), values.float()
        if self.distance == "mse":
            distances = (predicted - values).square().mean(-1)
        else:
            distances = 1 - functional.cosine_similarity(predicted, values, dim=-1)
        return (distances if weights is None else distances * weights).sum()

    def draw(
        self,
        hidden: Float[Tensor, "r ... d"],
        sampling: Sampling,
        generators: Generators | None = None,
        *,
        never: int | None = None,
    ) -> DrawnValues:
        vectors = self.output(hidden).float()
        if self.pairs and sampling.guidance != 1:
            return DrawnValues(torch.stack(vectors.chunk(2), 1))
        return DrawnValues(guided(vectors, sampling.guidance))

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        return example_tokenizer()
