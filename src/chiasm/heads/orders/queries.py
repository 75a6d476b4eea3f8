"""All positions at once, in one pass, from queries that stand in their places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from chiasm.connectors import Connector
from chiasm.errors import RecipeError
from chiasm.heads import (
    Alphabet,
    Ask,
    DrawingState,
    HeadContext,
    LanguageVocabulary,
    Order,
    Sampling,
    Span,
    SpanLayout,
    Writing,
    raster,
)
from chiasm.heads.conditioning import StateConditioning
from chiasm.heads.spans import check_target, count_images, counted, doubled
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Chance, Grid
from chiasm.tokenizers.spaces import Codes, Space, Vectors


class Queries(Order, name="queries"):
    """Parallel prediction from queries (DreamLLM, arXiv 2309.11499; NExT-GPT, 2309.05519; SEED-X, 2404.14396;
    MetaQueries, 2504.06256).

    Behind the marker that begins an image stand learnt queries, which are read in one pass: their hidden states are
    the image, by way of the alphabet. Nothing of an image is read before it is drawn, so that its parts are
    predicted each on its own.

    Args:
        alphabet: what one position says.
        grid: rows and columns of the queries; null = those of what is written. A decoder's conditions need them.
        causal: a query sees only those before it; else all see each other.
        words: ids of the language model's words that stand at the queries, in place of vectors of their own; text
            never holds those that stand at one query alone.
        from_marker: the first query is the marker that begins an image, whose hidden state is read too, as of the
            first signal token of NExT-GPT.
        with_words: what is read at a query is added to its hidden state, as in NExT-GPT.
        bridge: a connector between the hidden states, which it takes for a grid of features, and the alphabet, such
            as the resamplers of SEED-X and NExT-GPT; it makes as many vectors, as wide, as are written.
        unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    spaces: ClassVar = (Codes, Vectors)
    reads_codes: ClassVar[bool] = False
    alphabet: Alphabet | StateConditioning

    def __init__(
        self,
        context: HeadContext,
        *,
        alphabet: Alphabet | StateConditioning,
        grid: Grid | None = None,
        causal: bool = False,
        words: list[int] = [],  # noqa: B006
        from_marker: bool = False,
        with_words: bool = False,
        bridge: Connector | None = None,
        unconditional: Chance = 0.1,
    ):
        super().__init__()
        self.alphabet, self.bridge = alphabet, bridge
        self.unconditional, self.causal = unconditional, causal
        self.from_marker, self.with_words = from_marker, with_words
        self.grid = _grid_of(grid, context.space)
        self.space = self._with_grid(context.space)
        self.caption_words = context.decoder.caption_words if context.decoder is not None else 0
        self.words = list(words)
        count = math.prod(self.grid)
        self.length = count - from_marker  # positions that it fills
        if not self.length:
            raise RecipeError("order 'queries': from_marker needs queries behind the marker; widen the grid")
        if words:
            _check_words(words, count, context.vocabulary)
            self.queries = None
        else:
            rows = count if with_words else self.length
            self.queries = nn.Parameter(torch.randn(rows, context.width) * 0.02)
        self._embed_words = context.vocabulary.embed

    @classmethod
    def symbols(cls, space: Space) -> int:
        return 0

    @classmethod
    def inner(cls, spec: Mapping[str, Any], context: HeadContext) -> dict[str, tuple[Any, ...]]:
        if spec["bridge"] is None:
            return super().inner(spec, context)
        width = context.space.width if isinstance(context.space, Vectors) else context.width
        return {
            **super().inner(spec, replace(context, width=width)),
            "bridge": (context.width, width),
        }

    @property
    def reserved(self) -> Sequence[int]:
        own = [word for word in self.words if self.words.count(word) == 1]
        return [*self.alphabet.reserved, *own[self.from_marker :]]

    def layout(self) -> SpanLayout:
        first = int(self.from_marker)
        return SpanLayout(
            opens=(True,) + (self.causal,) * (self.length - 1),
            exposed=(True,) * self.length,
            rows=tuple(range(-first, self.length)),
            coordinates=raster(*self.grid)[first:],
            words=self.caption_words,
        )

    def prepare(self, target: Shaped[Tensor, "n ..."]) -> Span:
        """The queries; a target that is a condition's, an image itself, is not looked at."""
        if not self.alphabet.conditions:
            check_target(target, self.space)
        return Span(self.embed(len(target), target.device)[:, -self.length :], target)

    def embed(self, images: int, device: torch.device | str = "cpu") -> Float[Tensor, "n k d"]:
        """What stands at the queries of some images."""
        if self.queries is not None:
            return self.queries.expand(images, -1, -1)
        ids = torch.tensor(self.words, device=device)
        return self._embed_words(repeat(ids, "k -> n k", n=images))

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        if self.from_marker and span.orphans is not None:  # they have no marker before them
            first = torch.where(span.orphans[:, None, None], 0, hidden[:, :1])
            hidden = torch.cat([first, hidden[:, 1:]], 1)
        grid = self.bridged(hidden)
        if isinstance(self.alphabet, Alphabet):
            return counted(self.alphabet, grid.flatten(0, 2), span.targets.flatten(0, 2))
        return self.alphabet.image_losses(grid, span.targets, span.sources, span.words)

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw all positions behind one pass, which is made again when it was stopped."""
        images = count_images(start, sampling.guidance, self.unconditional)
        queries = self.embed(images, start.device)[:, -self.length :]
        hidden = yield Ask(doubled(queries, sampling.guidance))
        if self.from_marker:
            hidden = torch.cat([start[:, None], hidden], 1)
        return self.alphabet.draw(self.bridged(hidden), sampling, generators).values

    def bridged(self, hidden: Float[Tensor, "n m d"]) -> Float[Tensor, "n gh gw c"]:
        """What the alphabet is handed, in the grid that is written."""
        if self.with_words:
            hidden = hidden + self.embed(len(hidden), hidden.device).to(hidden.dtype)
        if self.bridge is not None:
            grid = rearrange(hidden, "n (gh gw) d -> n gh gw d", gh=self.grid[0])
            hidden = self.bridge(grid)
        return rearrange(hidden, "n (gh gw) d -> n gh gw d", gh=self.space.grid[0])

    def _with_grid(self, space: Space) -> Space:
        """The space with its grid, which the queries make where it has none."""
        count = math.prod(self.grid) if self.bridge is None else self.bridge.tokens(self.grid)
        if space.length and count != space.length:
            rows, columns = space.grid
            raise RecipeError(
                f"order 'queries' makes {count} {space.content} of {math.prod(self.grid)} queries, but the image "
                f"tokenizer's images have {rows} x {columns}; change its grid or its bridge"
            )
        if space.length:
            return space
        return replace(space, grid=self.grid if self.bridge is None else (1, count))


def _grid_of(grid: Sequence[int] | None, space: Space) -> tuple[int, int]:
    if grid is not None:
        return grid[0], grid[1]
    if not space.length:
        raise RecipeError(
            "order 'queries' needs a grid, [rows, columns] of queries, for a decoder is conditioned on as many as "
            "there are"
        )
    return space.grid


def _check_words(words: Sequence[int], count: int, vocabulary: LanguageVocabulary) -> None:
    if len(words) != count:
        raise RecipeError(f"order 'queries' has {len(words)} words for {count} queries")
    wrong = [id for id in words if not 0 <= id < vocabulary.vocabulary_size]
    if wrong:
        raise RecipeError(
            f"order 'queries': the word {wrong[0]} is none of the language model's ids, 0 to "
            f"{vocabulary.vocabulary_size - 1}"
        )
