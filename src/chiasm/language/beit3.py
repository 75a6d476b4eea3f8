"""BEiT-3: one transformer in which words and image tokens share attention and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.attention import Layout, attend
from chiasm.bounds import Depth, Epsilon, Heads, Times, Tokens, Vocabulary, Width
from chiasm.errors import RecipeError
from chiasm.language import Language
from chiasm.language.key_values import KeyValues
from chiasm.language.text import TextTokenizer
from chiasm.routing import current_kinds, current_reading
from chiasm.sequence import Kind

FIRST = 2  # the row of the first position, as fairseq counts
GROUPS: Any = (("text",), ("read", "written"))


@dataclass
class Cache(KeyValues):
    """words: how many words each row has had."""

    words: Int[Tensor, " b"] | int = 0


class BEiT3(Language, name="beit3"):
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
        if tokenizer:
            self.tokenizer = TextTokenizer.load(tokenizer, plain=chat_template is None)
        else:
            self.tokenizer = TextTokenizer.train(texts, vocabulary)
        if chat_template is not None:
            self.tokenizer.use_template(chat_template)
        self.tokenizer.allow_work(template_work)
        if draws:
            self.tokenizer.mark_pictures()
        size = max(len(self.tokenizer), vocab_size)
        self.width, self.context = width, context - FIRST
        self.table = nn.Embedding(size, width)
        self.positions = nn.Embedding(context, width)
        self.layers = nn.ModuleList(Layer(width, heads, hidden, sub_norm, epsilon) for _ in range(depth))
        self.norm = Ways(lambda: nn.LayerNorm(width, epsilon))
        self.readout = nn.Linear(width, size)
        self._initialise(math.sqrt(math.log(2 * depth)) if sub_norm else 1.0)

    def standalone(self) -> dict[str, Any]:
        return {"vocab_size": self.table.num_embeddings, "chat_template": None}

    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.table(ids)

    def forward(
        self,
        embeddings: Float[Tensor, "b t d"],
        positions: Int[Tensor, "b t"],
        layout: Layout,
        cache: Cache | None = None,
    ) -> Float[Tensor, "b t d"]:
        words, index = self._words(layout, cache)
        x = embeddings + torch.where(words[..., None], self.positions(index + FIRST), 0).to(embeddings.dtype)
        x = x * (layout.documents[:, -x.shape[1] :, None] >= 0)
        for i, layer in enumerate(self.layers):
            x = layer(x, layout, cache, i)
        return self.norm(x)

    @property
    def head(self) -> nn.Module:
        return self.readout

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]:
        return self.readout(hidden)

    def new_cache(self) -> Cache:
        return Cache()

    def _words(self, layout: Layout, cache: Cache | None) -> tuple[Tensor, Int[Tensor, "b t"]]:
        """Where words stand, and how many of the same document stand before each position."""
        kinds = current_kinds()
        documents = layout.documents[:, -kinds.shape[1] :]
        words = (kinds == Kind.TEXT) & (documents >= 0)
        before = words.cumsum(1) - words.long()
        starts = torch.ones_like(words)
        starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
        index = before - torch.where(starts, before, 0).cummax(1).values
        if cache is not None:
            index = index + (cache.words[:, None] if isinstance(cache.words, Tensor) else 0)
            cache.words = cache.words + words.sum(1)
        return words, torch.where(words, index, 0)

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


class Ways(nn.Module):
    """A module for words and one for image tokens."""

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self.text, self.image = make(), make()

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t d"]:
        reading = current_reading()
        (words, images), order = reading.parts(GROUPS)
        flat = reading.flat(x)
        joined = torch.cat([self.text(flat[words]), self.image(flat[images])])[order]
        return joined.view(*x.shape[:-1], -1)


class Layer(nn.Module):
    """Attention over all tokens, then the feed-forward networks; norms stand before both, and inside."""

    def __init__(self, width: int, heads: int, hidden: int, sub_norm: bool, epsilon: float):
        super().__init__()
        self.heads = heads
        self.attention_norm = Ways(lambda: nn.LayerNorm(width, epsilon))
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Ways(lambda: nn.Linear(width, width)) for _ in range(4)
        )
        self.inner_norm = Ways(lambda: nn.LayerNorm(width, epsilon)) if sub_norm else nn.Identity()
        self.network_norm = Ways(lambda: nn.LayerNorm(width, epsilon))
        self.network = Ways(lambda: FeedForward(width, hidden, sub_norm, epsilon))

    def forward(
        self, x: Float[Tensor, "b t d"], layout: Layout, cache: Cache | None, index: int
    ) -> Float[Tensor, "b t d"]:
        normed = self.attention_norm(x)
        query, key, value = (
            rearrange(project(normed), "b t (h e) -> b h t e", h=self.heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if cache is not None:
            key, value = cache.extended(index, key, value)
        answer, _ = attend(self, query, key, value, None, layout=layout)
        x = x + self.out_proj(self.inner_norm(rearrange(answer, "b t h e -> b t (h e)")))
        return x + self.network(self.network_norm(x))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, sub_norm: bool, epsilon: float):
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden, epsilon) if sub_norm else nn.Identity()
        self.second = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return self.second(self.norm(functional.gelu(self.first(x))))
