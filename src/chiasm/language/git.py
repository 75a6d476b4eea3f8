"""GIT's text decoder: one transformer over an image, a question and a causal answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.language import Language
from chiasm.language.key_values import KeyValues
from chiasm.language.text import TextTokenizer
from chiasm.parts.bounds import Depth, Heads, Times, Tokens, Vocabulary, Width
from chiasm.sequence import Kind
from chiasm.sequence.attention import attend
from chiasm.sequence.layout import Layout

EMBEDDING, ATTENTION, NETWORK = 1e-8, 1e-5, 1e-12  # epsilons of the norms behind each


class Git(Language, name="git"):
    """GIT's text decoder (arXiv 2205.14100), as PixelLLM has it: BERT's layers over a prefix and a causal answer.

    All that stands before the answer sees itself whole. Words have learnt positions, which are counted anew where
    the answer begins; image tokens have none.

    Args:
        width: of a hidden state.
        depth: layers.
        heads: of attention; they must divide `width`.
        context: most words of a question, and of an answer.
        tokenizer: folder or hub name of a tokenizer; without one it is trained.
        chat_template: as of language 'causal', in place of the tokenizer's own; without either, `caption`.
        template_work: as of language 'causal'.
        vocabulary: most tokens of a tokenizer trained on the recipe's own texts.
        vocab_size: rows of the table of words, where they are more than the tokenizer's tokens.
    """

    encodes_prompt = True

    def __init__(
        self,
        texts: Iterable[str] = (),
        draws: bool = False,
        *,
        width: Width = 768,
        depth: Depth = 6,
        heads: Heads = 12,
        context: Tokens = 1024,
        tokenizer: str | None = None,
        chat_template: str | None = None,
        template_work: Times = 1.0,
        vocabulary: Vocabulary = 4096,
        vocab_size: Vocabulary = 0,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"language 'git': {heads} heads do not divide the width {width}")
        if not tokenizer:
            chat_template = chat_template or "caption"
        self.tokenizer = TextTokenizer.of(
            tokenizer, texts, vocabulary, template=chat_template, work=template_work, plain=True
        )
        if draws:
            self.tokenizer.mark_pictures()
        size = max(len(self.tokenizer), vocab_size)
        self.width, self.context = width, context
        self.table = nn.Embedding(size, width)
        self.positions = nn.Embedding(context, width)
        self.norm = nn.LayerNorm(width, EMBEDDING)
        self.layers = nn.ModuleList(GitLayer(width, heads) for _ in range(depth))
        self.readout = nn.Linear(width, size)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def standalone(self) -> dict[str, Any]:
        return {"vocab_size": self.table.num_embeddings, "chat_template": None}

    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.table(ids)

    def read(
        self, embeddings: Float[Tensor, "b q d"], layout: Layout, cache: KeyValues | None
    ) -> Float[Tensor, "b q d"]:
        words, index = _words(layout)
        placed = self.norm(embeddings + self.positions(index).to(embeddings.dtype))
        x = torch.where(words[..., None], placed, embeddings)
        x = x * (layout.of_queries(layout.documents)[..., None] >= 0)
        for i, layer in enumerate(self.layers):
            x = layer(x, layout, cache, i)
        return x

    @property
    def head(self) -> nn.Module:
        return self.readout

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]:
        return self.readout(hidden)

    def new_cache(self) -> KeyValues:
        return KeyValues()

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 32, "depth": 2, "heads": 4, "context": 256, "vocabulary": 400}


def _words(layout: Layout) -> tuple[Bool[Tensor, "b q"], Int[Tensor, "b q"]]:
    """Which queries are words, and how many words of the same part of the document stand before each; else 0.

    A document has two parts: its first block, which is the prompt, and the answer.
    """
    words = (layout.kinds == Kind.TEXT) & (layout.documents >= 0)
    prompt = layout.counted(layout.opens) + layout.opens.long() <= 1
    in_prompt, in_answer = (layout.counted(words & part) for part in (prompt, ~prompt))
    index = torch.where(words, torch.where(prompt, in_prompt, in_answer), 0)
    return layout.of_queries(words), layout.of_queries(index)


class GitLayer(nn.Module):
    """Attention and an MLP with GELU, each followed by a LayerNorm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm = nn.LayerNorm(width, ATTENTION)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.network_norm = nn.LayerNorm(width, NETWORK)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(
        self, x: Float[Tensor, "b t d"], layout: Layout, cache: KeyValues | None, index: int
    ) -> Float[Tensor, "b t d"]:
        query, key, value = (
            rearrange(project(x), "b t (h e) -> b h t e", h=self.heads)
            for project in (self.query, self.key, self.value)
        )
        if cache is not None:
            key, value = cache.extended(index, key, value)
        answer, _ = attend(self, query, key, value, None, layout=layout)
        x = self.attention_norm(x + self.out(rearrange(answer, "b t h e -> b t (h e)")))
        return self.network_norm(x + self.network(x))
