"""VAR's transformer: every block is steered by what the picture shall be, through adaptive norms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import DataError, RecipeError
from chiasm.language import Language
from chiasm.language.conditions import ConditionedCache, WordConditions, conditions
from chiasm.language.text import DRAW, TextTokenizer
from chiasm.parts.bounds import Depth, Epsilon, Heads, Tokens, Vocabulary, Width, WidthOrZero
from chiasm.sequence import Kind
from chiasm.sequence.attention import attend
from chiasm.sequence.layout import Layout

SHARPEST = math.log(100)  # of attention by direction; the original's bound
GATES = 1e-3  # how open a new block's gates are, of their usual size; the original's `alng`


class VAR(Language, name="var"):
    """The transformer of VAR (arXiv 2404.02905) behind a class, as published, or behind words.

    Norms have no weights of their own: scale and shift of each, and a gate behind attention and feed-forward
    network, follow from the condition: the mean of the embeddings of the document's words so far, which is the
    class's where it is the only word. Words have learnt positions and are predicted by their own embeddings; the
    places of a picture are its head's.

    Args:
        width: of a hidden state.
        depth: blocks.
        heads: of attention.
        hidden: width inside the feed-forward networks; 0 = four times the width.
        shared: one layer makes the steering of all blocks, and each adds a table of its own (the original's
            shared_aln).
        cosine: attention compares directions, with a learnt sharpness a head (attn_l2_norm).
        epsilon: of the norms.
        classes: a prompt is the number of one of so many classes, and the empty prompt one more; 0 = words.
        words: most words of a document, where it has words.
        tokenizer: folder or hub name of a tokenizer; without one it is trained on the recipe's own texts.
        vocabulary: most tokens of a tokenizer trained on the recipe's own texts.
        vocab_size: least rows of the embedding table.
    """

    shares_prefixes = False  # its cache holds the sum of a document's words, which cannot be cut

    def __init__(
        self,
        texts: Iterable[str] = (),
        draws: bool = False,
        *,
        width: Width = 1024,
        depth: Depth = 16,
        heads: Heads = 16,
        hidden: WidthOrZero = 0,
        shared: bool = False,
        cosine: bool = True,
        epsilon: Epsilon = 1e-6,
        classes: Vocabulary = 0,
        words: Tokens = 256,
        tokenizer: str | None = None,
        vocabulary: Vocabulary = 4096,
        vocab_size: Vocabulary = 0,
    ):
        super().__init__()
        if width % heads:
            raise RecipeError(f"language 'var': {heads} heads do not divide the width {width}")
        if classes and not tokenizer:
            self.tokenizer = TextTokenizer.classes(classes)
        else:
            self.tokenizer = TextTokenizer.of(tokenizer, texts, vocabulary, plain=True)
        if draws:
            self.tokenizer.mark_pictures(None if classes else DRAW)
        self.width, self.context = width, 1 << 20
        self.table = nn.Embedding(max(len(self.tokenizer), vocab_size), width)
        self.start = nn.Parameter(torch.empty(1 if classes else words, width))
        self.level, self.cell = (nn.Parameter(torch.empty(1, width)) for _ in range(2))
        self.steer = Steer(width, 6) if shared else None
        self.layers = nn.ModuleList(
            VARLayer(width, heads, hidden or 4 * width, shared, cosine, epsilon) for _ in range(depth)
        )
        self.norm = Norm(width, epsilon)
        self.steer_norm = Steer(width, 2)
        self._initialise()

    def standalone(self) -> dict[str, Any]:
        return {"vocab_size": self.table.num_embeddings}

    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.table(ids)

    def read(
        self, embeddings: Float[Tensor, "b q d"], layout: Layout, cache: ConditionedCache | None
    ) -> Float[Tensor, "b q d"]:
        documents = layout.of_queries(layout.documents)
        words = (layout.of_queries(layout.kinds) == Kind.TEXT) & (documents >= 0)
        condition = conditions(embeddings, words, documents, cache)
        x = (
            embeddings
            if condition.index is None
            else embeddings + self._places(condition, words).to(embeddings.dtype)
        )
        steering = self._steering(condition, cache)
        for index, (layer, steered) in enumerate(zip(self.blocks, steering[1:], strict=True)):
            x = layer(x, steered, layout, cache, index)
        return self.norm(x, *steering[0])

    @property
    def head(self) -> nn.Module:
        return self.table

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]:
        return functional.linear(hidden, self.table.weight)

    def new_cache(self) -> ConditionedCache:
        return ConditionedCache()

    @property
    def blocks(self) -> list[VARLayer]:
        return [layer for layer in self.layers if isinstance(layer, VARLayer)]

    def _places(self, condition: WordConditions, words: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """What a word has besides its embedding; a picture's first scale is predicted where its prompt ends."""
        most, longest = len(self.start), int(condition.counts.max())
        if longest > most:
            raise DataError(
                f"a document has {longest} words, but language 'var' takes {most}: shorten it or raise 'words'"
            )
        place = self.start[(condition.at(condition.counts) - 1).clamp(min=0)] + self.level + self.cell
        return torch.where(words[..., None], place, 0)

    def _steering(
        self, condition: WordConditions, cache: ConditionedCache | None
    ) -> list[tuple[Tensor, ...]]:
        """Of the last norm, then of each block; for a picture being drawn it is made once."""
        if condition.index is None and cache is not None and cache.steering:
            return cache.steering
        shared = self.steer(condition.means) if self.steer is not None else None
        modulations = [condition.spread(self.steer_norm(condition.means))]
        modulations += [
            condition.spread(layer.steer(condition.means if shared is None else shared))
            for layer in self.blocks
        ]
        if condition.index is None and cache is not None:
            cache.steering = modulations
        return modulations

    def _initialise(self) -> None:
        """The original's: small weights, smaller ones before a residual sum, gates nearly shut."""
        deviation = math.sqrt(1 / self.width / 3)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=deviation)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for table in (self.start, self.level, self.cell):
            nn.init.trunc_normal_(table, std=deviation)
        with torch.no_grad():
            for layer in self.blocks:
                layer.proj.weight /= math.sqrt(2 * len(self.layers))
                layer.second.weight /= math.sqrt(2 * len(self.layers))
            for module in self.modules():
                if isinstance(module, Steer):
                    module.soften()

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"width": 32, "depth": 2, "heads": 4, "vocabulary": 400}


class Steer(nn.Module):
    """The condition to `parts` vectors that steer a block."""

    def __init__(self, width: int, parts: int):
        super().__init__()
        self.parts = parts
        self.make = nn.Linear(width, parts * width)

    def forward(self, condition: Float[Tensor, "b s d"]) -> Float[Tensor, "b s parts d"]:
        return self.make(functional.silu(condition)).unflatten(-1, (self.parts, -1))

    def soften(self) -> None:
        """Half of the usual weights for scales and shifts, nearly none for gates."""
        gates = self.make.out_features // 3 if self.parts == 6 else 0
        self.make.weight[gates:] *= 0.5
        self.make.weight[:gates] *= GATES


class Table(nn.Module):
    """What one block adds to a steering that all share."""

    def __init__(self, width: int):
        super().__init__()
        self.own = nn.Parameter(torch.randn(6, width) / math.sqrt(width))

    def forward(self, shared: Float[Tensor, "b s 6 d"]) -> Float[Tensor, "b s 6 d"]:
        return shared + self.own


class Norm(nn.Module):
    """A layer norm whose scale and shift are given."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.width, self.epsilon = width, epsilon

    def forward(
        self, x: Float[Tensor, "b t d"], scale: Float[Tensor, "b s d"], shift: Float[Tensor, "b s d"]
    ) -> Float[Tensor, "b t d"]:
        return torch.addcmul(shift, functional.layer_norm(x, (self.width,), eps=self.epsilon), 1 + scale)


class VARLayer(nn.Module):
    """Attention, then the feed-forward network; each is normed before and gated behind, as it is steered."""

    def __init__(self, width: int, heads: int, hidden: int, shared: bool, cosine: bool, epsilon: float):
        super().__init__()
        self.heads, self.cosine = heads, cosine
        self.scale = 1.0 if cosine else 0.25 / math.sqrt(width // heads)  # not the usual one: the original's
        self.norm = Norm(width, epsilon)
        self.steer = Table(width) if shared else Steer(width, 6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        if cosine:
            self.sharpness = nn.Parameter(torch.full((heads,), math.log(4)))
        self.proj = nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        steered: tuple[Tensor, ...],
        layout: Layout,
        cache: ConditionedCache | None,
        index: int,
    ) -> Float[Tensor, "b t d"]:
        gate1, gate2, scale1, scale2, shift1, shift2 = steered
        query, key, value = self._projected(self.norm(x, scale1, shift1))
        if cache is not None:
            key, value = cache.extended(index, key, value)
        answer, _ = attend(self, query, key, value, None, scaling=self.scale, layout=layout)
        x = torch.addcmul(x, self.proj(rearrange(answer, "b t h e -> b t (h e)")), gate1)
        inner = functional.gelu(self.first(self.norm(x, scale2, shift2)), approximate="tanh")
        return torch.addcmul(x, self.second(inner), gate2)

    def _projected(self, x: Float[Tensor, "b t d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `b h t e`; keys have no bias."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        fused = functional.linear(x, self.qkv.weight, bias)
        query, key, value = rearrange(fused, "b t (n h e) -> n b h t e", n=3, h=self.heads)
        if self.cosine:
            sharp = self.sharpness.clamp(max=SHARPEST).exp()[:, None, None]
            query, key = functional.normalize(query, dim=-1) * sharp, functional.normalize(key, dim=-1)
        return query, key, value
