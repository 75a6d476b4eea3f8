"""Unified-IO 2's language model: an encoder reads the prompt, a decoder writes the answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.errors import ChiasmError, RecipeError
from chiasm.language import Language
from chiasm.language.encoder_decoder import DecoderLayer, EncoderLayer, rotations
from chiasm.language.encoder_decoder_memory import BehindCache, Gathered, WholeDocuments
from chiasm.language.key_values import KeyValues
from chiasm.language.llama_block import Rotary
from chiasm.language.text import DRAW, Empty, TextTokenizer
from chiasm.nn.activations import Activation
from chiasm.parts.bounds import Depth, Epsilon, Heads, Positive, Times, Tokens, Vocabulary, Width
from chiasm.sequence import Kind
from chiasm.sequence.layout import Layout, attending


class UnifiedIO(Language, name="unified_io"):
    """Unified-IO 2's encoder-decoder (arXiv 2312.17172).

    The first block of a document (see `chiasm.sequence.rule`) is what the encoder reads: the prompt, its images
    among its words, all of which see each other. All behind it is the decoder's, which sees the encoder's result
    and, by the attention rule, what it has written. Words turn by how many words stand before them in the prompt or
    in the answer, image tokens by row and column. Learnt vectors tell words from images and prompts from answers.
    Words are scored by their own embeddings.

    Args:
        width: of a hidden state.
        encoder_depth: layers of the encoder.
        decoder_depth: layers of the decoder.
        heads: of attention.
        hidden: width inside the feed-forward networks.
        activation: inside them.
        gated: what the activation lets through is multiplied by a second projection.
        normalised: queries and keys are normalised in each head, which keeps training stable.
        cross_every: every so many of the decoder's layers, from the first, attends to the encoder's result, and so
            does the last.
        read_scale: by how much rows and columns of images that are read lie further apart than of those that are
            written; the original's is the root of the ratio of their numbers of tokens, 1024 to 576.
        rope_base: of the rotary embedding.
        epsilon: of the norms.
        context: most positions of a document, prompt and answer together.
        tokenizer: folder or hub name of a tokenizer; without one it is trained on the recipe's own texts.
        chat_template: as of language 'causal', in place of the tokenizer's own. The original's is `unified_io`:
            what is asked for, words or an image, stands before the prompt.
        template_work: as of language 'causal'.
        vocabulary: most tokens of a tokenizer trained on the recipe's own texts.
        vocab_size: least rows of the table of words.
        draw_marker: the token that begins a written image, added where the tokenizer lacks it; null = none, as of
            the original, whose images begin with a symbol of their own (order `raster_begun`).
        draw_end: the token behind a written image; null = none.
        empty_prompt: as of language 'causal'.
    """

    whole_pictures = True
    encodes_prompt = True

    def __init__(
        self,
        texts: Iterable[str] = (),
        draws: bool = False,
        *,
        width: Width = 1024,
        encoder_depth: Depth = 24,
        decoder_depth: Depth = 24,
        heads: Heads = 16,
        hidden: Width = 2816,
        activation: Activation = "silu",
        gated: bool = True,
        normalised: bool = True,
        cross_every: Depth = 1,
        read_scale: Positive = 4 / 3,
        rope_base: Positive = 10000.0,
        epsilon: Epsilon = 1e-6,
        context: Tokens = 2176,
        tokenizer: str | None = None,
        chat_template: str | None = None,
        template_work: Times = 1.0,
        vocabulary: Vocabulary = 4096,
        vocab_size: Vocabulary = 0,
        draw_marker: str | None = DRAW,
        draw_end: str | None = None,
        empty_prompt: Empty = "template",
    ):
        super().__init__()
        if width % heads or width // heads % 4:
            raise RecipeError(
                f"language 'unified_io': {heads} heads must divide the width {width} into multiples of 4, which "
                "turn by row and column"
            )
        self.tokenizer = TextTokenizer.of(
            tokenizer, texts, vocabulary, template=chat_template, work=template_work
        )
        if draws:
            self.tokenizer.mark_pictures(draw_marker, draw_end, empty_prompt)
        self.width, self.context, self.read_scale = width, context, read_scale
        self.table = nn.Embedding(max(len(self.tokenizer), vocab_size), width)
        self.prompt_text, self.prompt_image, self.answer_text, self.answer_image = (
            nn.Parameter(torch.randn(width) * 0.02) for _ in range(4)
        )
        sizes = (width, heads, hidden, activation, gated, normalised, epsilon)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_depth))
        self.encoder_norm = nn.RMSNorm(width, epsilon)
        crosses = [i % cross_every == 0 or i == decoder_depth - 1 for i in range(decoder_depth)]
        self.decoder = nn.ModuleList(DecoderLayer(*sizes, each) for each in crosses)
        self.decoder_norm = nn.RMSNorm(width, epsilon)
        self.rotation = WordOrCellRotation(width // heads, rope_base)

    def standalone(self) -> dict[str, Any]:
        return {"vocab_size": self.table.num_embeddings, "chat_template": None}

    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        return self.table(ids)

    def read(
        self, embeddings: Float[Tensor, "b q d"], layout: Layout, cache: KeyValues | None
    ) -> Float[Tensor, "b q d"]:
        x, rotary = self.marked(embeddings, layout), self.rotary(layout)
        if cache is not None and cache.lengths:
            if bool(layout.of_queries(layout.first_block).any()):
                raise ChiasmError(
                    "language 'unified_io' encodes a prompt as a whole: nothing can be added to one that was read"
                )
            return self._decoded(x, rotary, layout, BehindCache(layout, cache))
        source, target = (Gathered.of(layout, each) for each in (layout.first_block, ~layout.first_block))
        encoded = self.encoded(source.take(x), source.take(rotary), source.layout)
        memory = WholeDocuments(source, target, encoded, source.take(rotary), cache)
        decoded = self._decoded(target.take(x), target.take(rotary), target.layout, memory)
        return source.put(encoded) + target.put(decoded)

    def encoded(self, x: Float[Tensor, "b s d"], rotary: Rotary, layout: Layout) -> Float[Tensor, "b s d"]:
        with attending(layout):
            for layer in self.encoder:
                x = layer(x, rotary, layout)
            return self.encoder_norm(x)

    def _decoded(
        self, x: Float[Tensor, "b u d"], rotary: Rotary, layout: Layout, memory: WholeDocuments | BehindCache
    ) -> Float[Tensor, "b u d"]:
        with attending(layout):
            for index, layer in enumerate(self.decoder):
                x = layer(x, rotary, memory, index)
            return self.decoder_norm(x)

    def marked(self, embeddings: Float[Tensor, "b q d"], layout: Layout) -> Float[Tensor, "b q d"]:
        """The embeddings with what tells words from images, and prompts from answers."""
        marks = torch.stack([self.prompt_text, self.prompt_image, self.answer_text, self.answer_image])
        answer, image = ~layout.first_block, layout.kinds != Kind.TEXT
        return embeddings + marks[layout.of_queries(2 * answer.long() + image.long())].to(embeddings.dtype)

    def rotary(self, layout: Layout) -> Rotary:
        """How the queries turn: a word by the words before it in the prompt or in the answer, an image by cell."""
        words, prompt = layout.kinds == Kind.TEXT, layout.first_block
        real = words & (layout.documents >= 0)
        before = torch.where(prompt, layout.counted(real & prompt), layout.counted(real & ~prompt))
        cells = layout.coordinates[..., 1:].float()
        cells = torch.where((layout.kinds == Kind.READ)[..., None], cells * self.read_scale, cells)
        columns = (layout.of_queries(column) for column in (words, before, cells))
        return self.rotation(*columns)

    @property
    def head(self) -> nn.Module:
        return self.table

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]:
        return functional.linear(hidden, self.table.weight) / math.sqrt(self.width)

    def grow(self, count: int) -> int:
        first = self.table.num_embeddings
        rows = nn.Embedding(first + count, self.width)
        rows.weight.data[:first] = self.table.weight.data
        self.table = rows
        return first

    def new_cache(self) -> KeyValues:
        return KeyValues()

    @classmethod
    def example(cls) -> dict[str, Any]:
        sizes = {"width": 32, "encoder_depth": 2, "decoder_depth": 2, "heads": 4, "hidden": 48}
        return {**sizes, "context": 256, "vocabulary": 400}


class WordOrCellRotation(nn.Module):
    """Turns of neighbouring channels: by a word's place, or half by an image token's row and half by its column."""

    line: Float[Tensor, " p"]
    plane: Float[Tensor, " f"]

    def __init__(self, head_width: int, base: float):
        super().__init__()
        for name, width in (("line", head_width), ("plane", head_width // 2)):
            exponents = torch.arange(0, width, 2).float() / width
            self.register_buffer(name, 1.0 / base**exponents, persistent=False)

    def forward(self, words: Tensor, places: Int[Tensor, "b t"], cells: Float[Tensor, "b t 2"]) -> Rotary:
        """words: which are words (b t), turned by `places`; the others turn by `cells`."""
        along = places[..., None] * self.line
        across = torch.cat([axis[..., None] * self.plane for axis in cells.unbind(-1)], -1)
        return rotations(torch.where(words[..., None], along, across))
