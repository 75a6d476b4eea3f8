"""What objectives that compare pictures with texts share: a text tower, and one space for both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.distribution.collective import gathered
from chiasm.encoders.vit import ViTBlock
from chiasm.errors import RecipeError
from chiasm.language.text import TextTokenizer
from chiasm.model import Model
from chiasm.nn.indivisible import Indivisible
from chiasm.nn.losses import Loss
from chiasm.objectives import Described, Objective, Setting


class TwoTowers(Objective, Indivisible):
    """Interface of a loss over the likeness of every picture of a step to every text of it, on all processes.

    A picture is the mean of its features, a text the hidden state at its end; both are projected and normalised.
    """

    names: ClassVar = ("contrast",)

    def __init__(self, setting: Setting, width: int, text: TextTower):
        super().__init__()
        self.text = text
        self.picture_out = nn.Linear(_width(setting.model), width, bias=False)
        self.text_out = nn.Linear(text.width, width, bias=False)
        for layer in (self.picture_out, self.text_out):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    @abstractmethod
    def terms_of(
        self, to_texts: Float[Tensor, "n m"], to_images: Float[Tensor, "n m"], own: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """The loss of each pair of this process, of cosines with those of all processes.

        to_texts: of the pictures to all texts. to_images: of the texts to all pictures. own: which of the m
        belongs to each of the n.
        """

    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        self.cut_texts = self.text.cut(batch.texts)
        pooled = reduce(model.encode(batch.pixels), "n gh gw c -> n c", "mean")
        images = functional.normalize(self.picture_out(pooled), dim=1)
        texts = functional.normalize(self.text_out(self.text(batch.texts)), dim=1)
        self.observe(images)
        (all_images, first), (all_texts, _) = gathered(images), gathered(texts)
        own = first + torch.arange(len(images), device=images.device)
        to_texts, to_images = (images @ all_texts.T).float(), (texts @ all_images.T).float()
        return {"contrast": Loss.of(self.terms_of(to_texts, to_images, own))}

    def indivisible(self, *, ranks: bool, rows: int) -> str | None:
        return None if ranks else f"objective {self.name!r} compares every pair of a batch; give it more rows"


class TextTower(nn.Module):
    """A causal transformer over the words of a text, in the model's own text tokenizer (CLIP's, section 2.4)."""

    def __init__(self, tokenizer: TextTokenizer, width: int, depth: int, heads: int, context: int):
        super().__init__()
        if width % heads:
            raise RecipeError(f"a text tower's {heads} heads do not divide its width {width}")
        self.tokenizer, self.width, self.context = tokenizer, width, context
        self.words = nn.Embedding(len(tokenizer), width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(ViTBlock(width, heads, 4 * width, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.01)

    def cut(self, texts: Sequence[str]) -> int:
        """How many texts do not fit into the context."""
        return sum(len(self.tokenizer.encode_plain(text)) > self.context - 1 for text in texts)

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """The hidden state at each text's end; what a text has beyond the context is left out."""
        device, end = self.words.weight.device, self.tokenizer.end
        rows = [[*self.tokenizer.encode_plain(text)[: self.context - 1], end] for text in texts]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        longest = int(lengths.max())
        ids = torch.tensor([row + [end] * (longest - len(row)) for row in rows], device=device)
        hidden = self.norm(self.blocks(self.words(ids) + self.places.weight[:longest]))
        return hidden[torch.arange(len(rows), device=device), lengths - 1]


def _width(model: Model) -> int:
    assert model.encoder is not None  # the recipe is checked
    return model.encoder.width
