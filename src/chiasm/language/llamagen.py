"""LlamaGen's transformer: a Llama that knows the row and the column of every code that it writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.attention import Layout
from chiasm.bounds import Count, Depth, Epsilon, Heads, Positive, Share, Tokens, Vocabulary, Width
from chiasm.language import Language
from chiasm.language.key_values import KeyValues
from chiasm.language.llama_block import GridRotation, LlamaBlock, Turns, initialise
from chiasm.language.text import DRAW, TextTokenizer
from chiasm.routing import current_kinds
from chiasm.sequence import Kind


@dataclass
class GridCache(KeyValues):
    """cells: how many cells of an unfinished picture stand at the end of each row."""

    cells: Int[Tensor, " b"] | int = 0

    def crop(self, count: int) -> None:
        super().crop(count)
        self.cells = self.cells + count  # what is forgotten is always a part of a picture


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

    def forward(
        self,
        embeddings: Float[Tensor, "b t d"],
        positions: Int[Tensor, "b t"],
        layout: Layout,
        cache: GridCache | None = None,
    ) -> Float[Tensor, "b t d"]:
        turns = self.turns(positions, layout, cache)
        x = self.token_dropout(embeddings)
        for index, layer in enumerate(self.layers):
            x = layer(x, turns, layout, cache, index)
        return self.norm(x)

    def turns(self, positions: Int[Tensor, "b t"], layout: Layout, cache: GridCache | None) -> Turns:
        """A code turns by its cell. A word is without a place, or stands on the diagonal before the picture."""
        kinds = current_kinds()
        documents = layout.documents[:, -kinds.shape[1] :]
        written = (kinds == Kind.WRITTEN) & (documents >= 0)
        index = _since_start(written, documents, 0 if cache is None else cache.cells)
        if cache is not None:
            cache.cells = torch.where(written[:, -1], index[:, -1] + 1, 0)
        index = index % (self.grid[0] * self.grid[1])
        row, column = index // self.grid[1], index % self.grid[1]
        if not self.turn_words:
            return self.rotation(row, column, written)
        first = torch.where(written, positions - index, positions)
        return self.rotation(first + row, first + column, torch.ones_like(written))

    def new_cache(self) -> GridCache:
        return GridCache()


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
        if tokenizer:
            self.tokenizer = TextTokenizer.load(tokenizer, plain=True)
        elif classes:
            self.tokenizer = TextTokenizer.classes(classes)
        else:
            self.tokenizer = TextTokenizer.train(texts, vocabulary)
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


def _since_start(
    written: Tensor, documents: Int[Tensor, "b t"], carried: Int[Tensor, " b"] | int
) -> Int[Tensor, "b t"]:
    """How many written positions stand before each in one unbroken row of them; 0 where nothing is written.

    carried: how many end what was read before.
    """
    steps = torch.arange(written.shape[1], device=written.device).expand(written.shape)
    begins = torch.zeros_like(written)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    unbroken = -(carried[:, None] if isinstance(carried, Tensor) else carried) + torch.zeros_like(steps)
    starts = torch.where(written, torch.where(begins, steps, unbroken), steps + 1).cummax(1).values
    return torch.where(written, steps - starts, 0)
