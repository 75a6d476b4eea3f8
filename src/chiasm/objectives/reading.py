"""A tower that learns by being read through: a small language model says what stands on a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.encoders import Encoder
from chiasm.encoders.hybrid import Hybrid
from chiasm.errors import RecipeError
from chiasm.language import Language
from chiasm.model import Model
from chiasm.nn.losses import Loss, cross_entropy
from chiasm.objectives import Described, Objective, Setting
from chiasm.parts.bounds import Count, Tokens
from chiasm.sequence.layout import Layout

NOTHING = -1  # in place of an id behind the end of a text


class Reading(Objective, name="reading"):
    """Vary's way to a new visual vocabulary: a small language model reads images through one tower alone
    (arXiv 2312.06109, section 3.2).

    The tower's features, by a linear layer, stand before the text of the image, which the small model predicts word
    by word. It is dropped when the stage ends; the tower stands in the encoder. Other towers of the encoder stay as
    they are, whatever the stage's rate.

    Args:
        language: the small language model, with a text tokenizer of its own; Vary-tiny's is OPT-125M.
        tower: which of a `hybrid`'s encoders learns, counted from 0; null = the encoder as a whole.
        context: most tokens of a text, with its end; the rest is cut off.
    """

    names: ClassVar = ("reading",)

    def __init__(
        self, setting: Setting, *, language: Language, tower: Count | None = None, context: Tokens = 1024
    ):
        super().__init__()
        self.tower, self.context, self.language = tower, context, language
        encoder = self._tower(setting.model)
        rows, columns = encoder.grid(*self._size(setting.model, setting.size))
        longest = rows * columns + context
        if longest > language.context:
            raise RecipeError(
                f"objective 'reading': {rows * columns} visual tokens and a text of {context} are {longest}, but "
                f"its language model's context is {language.context}"
            )
        self.connector = nn.Linear(encoder.width, language.width)

    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        tokenizer = self.language.tokenizer
        self.cut_texts = sum(len(tokenizer.encode_plain(text)) >= self.context for text in batch.texts)
        features = rearrange(self._features(model, batch.pixels), "n gh gw c -> n (gh gw) c")
        self.observe(reduce(features, "n s c -> n c", "mean"))
        visual, ids = self.connector(features), self._ids(batch.texts).to(features.device)
        begin = torch.full((1,), tokenizer.begin, device=features.device)
        first = repeat(self.language.embed(begin), "1 d -> n 1 d", n=len(batch))
        words = self.language.embed(ids[:, :-1].clamp(min=0))
        embeddings = torch.cat([first, visual, words], 1)
        layout = Layout.causal(len(embeddings), embeddings.shape[1], device=embeddings.device)
        hidden = self.language(embeddings, layout)[:, visual.shape[1] :]
        real = ids != NOTHING
        terms = cross_entropy(self.language.logits(hidden[real]), ids[real])
        return {"reading": Loss(terms, real.sum().float())}

    def terms(self, batch: Described) -> dict[str, float]:
        return {"reading": float((self._ids(batch.texts) != NOTHING).sum())}

    def _tower(self, model: Model) -> Encoder:
        encoder = model.encoder
        assert encoder is not None  # the recipe is checked
        if self.tower is None:
            return encoder
        if not isinstance(encoder, Hybrid) or self.tower >= len(encoder.encoders):
            raise RecipeError(
                f"objective 'reading' trains tower {self.tower} of an encoder 'hybrid', which the model's encoder "
                f"{encoder.name!r} has not"
            )
        chosen: Encoder = encoder.encoders[self.tower]
        return chosen

    def _size(self, model: Model, size: tuple[int, int]) -> tuple[int, int]:
        """The size at which the tower sees images of this one."""
        if self.tower is None:
            return size
        assert isinstance(model.encoder, Hybrid)
        return model.encoder.size_of(self.tower, *size)

    def _features(self, model: Model, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        if self.tower is None:
            return model.encode(pixels)
        assert isinstance(model.encoder, Hybrid)
        return model.encoder.alone(self.tower, pixels)

    def _ids(self, texts: Sequence[str]) -> Int[Tensor, "n t"]:
        """The words of each text and its end, and NOTHING behind it."""
        tokenizer = self.language.tokenizer
        rows = [[*tokenizer.encode_plain(text)[: self.context - 1], tokenizer.end] for text in texts]
        longest = max(map(len, rows))
        return torch.tensor([row + [NOTHING] * (longest - len(row)) for row in rows])

    @classmethod
    def example(cls) -> dict[str, Any]:
        config = {
            "model_type": "opt",
            "hidden_size": 16,
            "word_embed_proj_dim": 16,
            "ffn_dim": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
        }
        return {"language": {"type": "causal", "vocabulary": 300, "config": config}, "context": 40}
