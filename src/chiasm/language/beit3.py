"""BEiT-3: one transformer in which words and image tokens share attention and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.language import Language
from chiasm.language.key_values import KeyValues
from chiasm.language.text import TextTokenizer
from chiasm.parts.bounds import Depth, Epsilon, Heads, Times, Tokens, Vocabulary, Width
from chiasm.sequence import Kind
from chiasm.sequence.attention import attend
from chiasm.sequence.layout import Layout

FIRST = 2  # the row of the first position, as fairseq counts
GROUPS: Any = (("text",), ("read", "written"))


class BEiT3Language(Language, name="beit3"):
    """BEiT-3's multiway transformer as a captioner (arXiv 2208.10442; torchscale's multiway encoder).

    Every projection, feed-forward network and norm exists twice, for words and for image tokens; attention is
    over both. A picture's tokens see each other, a word sees pictures and words before it. Words are counted
    without the image tokens; positions of image tokens are the connector's ('embedding').

    Args:
        width: of a hidden state.
        depth: layers.
        heads: of attention.
        hidden: width inside the feed-forward networks.
        context: most words of a document, and two.
        sub_norm: norms inside attention and feed-forward networks as well (Magneto, arXiv 2210.06423).
        epsilon: of the norms.
        tokenizer: folder or hub name of a tokenizer; without one it is trained.
        chat_template: as of language 'causal', in place of the tokenizer's own; without either, `plain`.
        template_work: as of language 'causal'.
        vocabulary: most tokens of a tokenizer trained on the recipe's own texts.
        vocab_size: rows of the table of words, where they are more than the tokenizer's tokens.
    """

    whole_pictures = True

    def __init__(
        self,
        texts: Iterable[str] = (),
        draws: bool = False,
        *,
        width: Width = 768,
        depth: Depth = 12,
        heads: Heads = 12,
        hidden: Width = 3072,
        context: Tokens = 1024,
        sub_norm: bool = True,
        epsilon: Epsilon = 1e-5,
        tokenizer: str | None = None,
        chat_template: str | None = None,
        template_work: Times = 1.0,
        vocabulary: Vocabulary = 4096,
        vocab_size: Vocabulary = 0,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"language 'beit3': {heads} heads do not divide the width {width}")
        self.tokenizer = TextTokenizer.of(
            tokenizer, texts, vocabulary, template=chat_template, work=template_work, plain=True
        )
        if draws:
            self.tokenizer.mark_pictures()
        size = max(len(self.tokenizer), vocab_size)
        self.width, self.context = width, context - FIRST
        self.table = nn.Embedding(size, width)
        self.positions = nn.Embedding(context, width)
        self.layers = nn.ModuleList(BEiT3Layer(width, heads, hidden, sub_norm, epsilon) for _ in range(depth))
        self.norm = Ways(lambda: nn.LayerNorm(width, epsilon))
        self.readout = nn.Linear(width, size)
        self._initialise(math.sqrt(math.log(2 * depth)) if sub_norm else 1.0)

    def standalone(self) -> dict[str, Any]:
        return {"vocab_size": self.table.num_embeddings, "chat_template": None}

    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.table(ids)

    def read(
        self, embeddings: Float[Tensor, "b q d"], layout: Layout, cache: KeyValues | None
    ) -> Float[Tensor, "b q d"]:
        words, index = word_positions(layout)
        x = embeddings + torch.where(words[..., None], self.positions(index + FIRST), 0).to(embeddings.dtype)
        x = x * (layout.of_queries(layout.documents)[..., None] >= 0)
        for i, layer in enumerate(self.layers):
            x = layer(x, layout, cache, i)
        return self.norm(x, layout)

    @property
    def head(self) -> nn.Module:
        return self.readout

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]:
        return self.readout(hidden)

    def new_cache(self) -> KeyValues:
        return KeyValues()

    def _initialise(self, scale: float) -> None:
        """Small weights; with norms inside, larger ones for what stands before or behind them, as in Magneto."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
                if any(each in name for each in ("first", "second", "out_proj", "v_proj")):
                    module.weight.data.mul_(scale)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.width**-0.5)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 32, "depth": 2, "heads": 4, "hidden": 48, "context": 256, "vocabulary": 400}


def word_positions(layout: Layout) -> tuple[Bool[Tensor, "b q"], Int[Tensor, "b q"]]:
    """Which queries are words, and how many words of the same document stand before each; 0 elsewhere."""
    words = (layout.kinds == Kind.TEXT) & (layout.documents >= 0)
    index = torch.where(words, layout.counted(words), 0)
    return layout.of_queries(words), layout.of_queries(index)


class Ways(nn.Module):
    """A module for words and one for image tokens."""

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self.text, self.image = make(), make()

    def forward(self, x: Float[Tensor, "b q c"], layout: Layout) -> Float[Tensor, "b q d"]:
        (words, images), order = layout.by_kind.parts(GROUPS)
        flat = layout.by_kind.flat(x)
        joined = torch.cat([self.text(flat[words]), self.image(flat[images])])[order]
        return joined.view(*x.shape[:-1], -1)


class BEiT3Layer(nn.Module):
    """Attention over all tokens, then the feed-forward networks; norms stand before both, and inside."""

    def __init__(self, width: int, heads: int, hidden: int, sub_norm: bool, epsilon: float):
        super().__init__()
        self.heads = heads
        self.attention_norm = Ways(lambda: nn.LayerNorm(width, epsilon))
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Ways(lambda: nn.Linear(width, width)) for _ in range(4)
        )
        self.inner_norm = Ways(lambda: nn.LayerNorm(width, epsilon)) if sub_norm else None
        self.network_norm = Ways(lambda: nn.LayerNorm(width, epsilon))
        self.network = Ways(lambda: FeedForward(width, hidden, sub_norm, epsilon))

    def forward(
        self, x: Float[Tensor, "b t d"], layout: Layout, cache: KeyValues | None, index: int
    ) -> Float[Tensor, "b t d"]:
        normed = self.attention_norm(x, layout)
        query, key, value = (
            rearrange(project(normed, layout), "b t (h e) -> b h t e", h=self.heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if cache is not None:
            key, value = cache.extended(index, key, value)
        answer, _ = attend(self, query, key, value, None, layout=layout)
        mixed = rearrange(answer, "b t h e -> b t (h e)")
        if self.inner_norm is not None:
            mixed = self.inner_norm(mixed, layout)
        x = x + self.out_proj(mixed, layout)
        return x + self.network(self.network_norm(x, layout), layout)


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, sub_norm: bool, epsilon: float):
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden, epsilon) if sub_norm else nn.Identity()
        self.second = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return self.second(self.norm(functional.gelu(self.first(x))))
