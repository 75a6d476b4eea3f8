"""LlamaGen's transformer: a Llama that knows the row and the column of every code that it writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.language import Language
from chiasm.language.key_values import KeyValues
from chiasm.language.llama_block import GridRotation, LlamaBlock, Rotary, initialise
from chiasm.language.text import DRAW, TextTokenizer
from chiasm.parts.bounds import Count, Depth, Epsilon, Heads, Positive, Share, Tokens, Vocabulary, Width
from chiasm.sequence import Kind
from chiasm.sequence.layout import Layout


class GridLlama(Language):
    """The layers, for languages that differ in what a prompt is: see `LlamaGen` for the options.

    Each gives itself a `tokenizer`, `embed` and `logits`.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        key_value_heads: int,
        hidden: int,
        context: int,
        rope_base: float,
        epsilon: float,
        final_norm: bool,
        turn_words: bool,
        token_dropout: float,
        dropout: float,
    ):
        super().__init__()
        self.width, self.context, self.turn_words = width, context, turn_words
        self.token_dropout = nn.Dropout(token_dropout)
        self.rotation = GridRotation(width // heads, rope_base)
        groups = key_value_heads or heads
        self.layers = nn.ModuleList(
            LlamaBlock(width, heads, groups, hidden, epsilon, dropout) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, epsilon) if final_norm else nn.Identity()

    def read(
        self, embeddings: Float[Tensor, "b q d"], layout: Layout, cache: KeyValues | None
    ) -> Float[Tensor, "b q d"]:
        rotary = self.rotary(layout)
        x = self.token_dropout(embeddings)
        for index, layer in enumerate(self.layers):
            x = layer(x, rotary, layout, cache, index)
        return self.norm(x)

    def rotary(self, layout: Layout) -> Rotary:
        """A code turns by its cell. A word is without a place, or stands on the diagonal before the picture."""
        kinds, documents, positions, coordinates = (
            layout.of_queries(column)
            for column in (layout.kinds, layout.documents, layout.positions, layout.coordinates)
        )
        written = (kinds == Kind.WRITTEN) & (documents >= 0)
        before, row, column = torch.where(written[..., None], coordinates, 0).unbind(-1)
        if not self.turn_words:
            return self.rotation(row, column, written)
        first = positions - before
        return self.rotation(first + row, first + column, torch.ones_like(written))

    def new_cache(self) -> KeyValues:
        return KeyValues()


class LlamaGen(GridLlama, name="llamagen"):
    """LlamaGen's transformer behind a class or words (arXiv 2406.06525).

    Of a picture that is written every code turns by its row and column. What stands before it is without a place,
    as in the published models: all of it is seen alike, which is enough for a class but not for words, whose order
    then counts for nothing; see `turn_words`. Words are scored by their own embeddings.

    Args:
        width: of a hidden state.
        depth: layers.
        heads: of attention.
        key_value_heads: heads of keys and values; 0 = as many as heads.
        hidden: width inside the networks.
        context: most positions of a document.
        rope_base: of the rotary embedding.
        epsilon: of the norms.
        final_norm: a norm behind the last layer.
        turn_words: words turn by their place in the document, so that their order counts; the original's do not.
        token_dropout: of embeddings, in training.
        dropout: of what attention and networks add, in training.
        classes: a prompt is the number of one of so many classes, and the empty prompt one more; 0 = words.
        tokenizer: folder or hub name of a tokenizer; without one it is trained on the recipe's own texts.
        vocabulary: most tokens of a tokenizer trained on the recipe's own texts.
        vocab_size: least rows of the embedding table.
        draw_marker: the token that begins a written picture, added where the tokenizer lacks it; null = none, a
            picture follows what stands before it at once, as it does behind a class.
        draw_end: the token behind a written picture; null = none.
    """

    def __init__(
        self,
        texts: Iterable[str] = (),
        draws: bool = False,
        *,
        width: Width = 768,
        depth: Depth = 12,
        heads: Heads = 12,
        key_value_heads: Count = 0,
        hidden: Width = 2048,
        context: Tokens = 4096,
        rope_base: Positive = 10000.0,
        epsilon: Epsilon = 1e-5,
        final_norm: bool = True,
        turn_words: bool = False,
        token_dropout: Share = 0.1,
        dropout: Share = 0.1,
        classes: Vocabulary = 0,
        tokenizer: str | None = None,
        vocabulary: Vocabulary = 4096,
        vocab_size: Vocabulary = 0,
        draw_marker: str | None = DRAW,
        draw_end: str | None = None,
    ):
        super().__init__(
            width=width,
            depth=depth,
            heads=heads,
            key_value_heads=key_value_heads,
            hidden=hidden,
            context=context,
            rope_base=rope_base,
            epsilon=epsilon,
            final_norm=final_norm,
            turn_words=turn_words,
            token_dropout=token_dropout,
            dropout=dropout,
        )
        if classes and not tokenizer:
            self.tokenizer = TextTokenizer.classes(classes)
        else:
            self.tokenizer = TextTokenizer.of(tokenizer, texts, vocabulary, plain=True)
        if draws:
            self.tokenizer.mark_pictures(None if classes else draw_marker, None if classes else draw_end)
        self.table = nn.Embedding(max(len(self.tokenizer), vocab_size), width)
        initialise(self)

    def standalone(self) -> dict[str, Any]:
        return {"vocab_size": self.table.num_embeddings}

    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.table(ids)

    @property
    def head(self) -> nn.Module:
        return self.table

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]:
        return functional.linear(hidden, self.table.weight)

    def grow(self, count: int) -> int:
        first = self.table.num_embeddings
        rows = nn.Embedding(first + count, self.width)
        initialise(rows)
        rows.weight.data[:first] = self.table.weight.data
        self.table = rows
        return first

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 32, "depth": 2, "heads": 4, "hidden": 48, "context": 256, "vocabulary": 400}
