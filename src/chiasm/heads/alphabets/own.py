"""Codes with a vocabulary of their own."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.heads import HeadContext
from chiasm.heads.categorical import Categorical
from chiasm.heads.sampling import guided
from chiasm.parts.bounds import Share


class Own(Categorical, name="own"):
    """A table of embeddings and a linear output layer of their own (LlamaGen, arXiv 2406.06525; VAR, 2404.02905).

    Both are separate from the language model's, so text can never hold image codes, nor an image words.

    Args:
        bias: the output layer has biases, which begin at 0.
        deviation: of the output layer's initial weights; 0 = at first every code is as likely as any other.
    """

    def __init__(self, context: HeadContext, symbols: int, *, bias: bool = False, deviation: Share = 0.02):
        super().__init__()
        self.codes = nn.Embedding(symbols, context.width) if symbols else None
        self.output = nn.Linear(context.width, context.codes.size, bias=bias)
        if self.codes is not None:
            nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.output.weight, std=deviation)
        if bias:
            nn.init.zeros_(self.output.bias)

    def embed(self, values: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        assert self.codes is not None
        return self.codes(values)

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        return self.output(hidden).float()

    def guided_logits(self, hidden: Float[Tensor, "r ... d"], guidance: float) -> Float[Tensor, "n ... k"]:
        """The output layer is linear, so that guided hidden states have the guided logits."""
        return self.logits(guided(hidden, guidance))
