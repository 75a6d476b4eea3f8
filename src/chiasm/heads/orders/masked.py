"""All positions at once, again and again: masked tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.heads import (
    Alphabet,
    Ask,
    DrawingState,
    HeadContext,
    LanguageVocabulary,
    Order,
    Retained,
    Sampling,
    Span,
    SpanLayout,
    Writing,
    raster,
)
from chiasm.heads.masking import masked_share, unsure
from chiasm.heads.spans import at_cells, cell_embedding, check_target, count_images, doubled, refuse_strays
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.nn.training_noise import training_numbers
from chiasm.parts.bounds import Cells, Chance
from chiasm.sequence import IGNORE
from chiasm.tokenizers.spaces import Codes, Space, Vectors

KNOWN = math.log(torch.finfo(torch.float32).max)  # confidence in a code that is no longer masked


class Masked(Order, name="masked"):
    """Masked prediction of image codes (MaskGIT, arXiv 2202.04200; MAGVIT-v2, arXiv 2310.05737; Show-o, arXiv
    2408.12528), or of vectors (MAR, arXiv 2406.11838).

    An image is one attention block, in which all cells see each other. In training a random share of its values,
    set by the schedule, is replaced by a mask, and the hidden state at each masked cell predicts the value there.
    An image is drawn in a few passes over the whole block: each proposes every masked code and keeps those it is
    surest of. A vector has no chance to be sure of: each pass draws those of some cells, at random which.

    The loss has one term an image, the mean over its masked values. Without gradients the mask is a function of
    the values alone, so that an evaluation can be repeated.

    Args:
        alphabet: what one position says.
        steps: passes of the language model that draw an image.
        schedule: share of masked values from first step to last: cosine, linear, sigmoid, or powX = 1 - t^X (pow2).
        cells: add a learnt embedding of its cell to what stands at a position; without it only the language model's
            positions tell cells apart.
        before: ids of the language model's words in the block before the codes of an image that is written.
        before_read: the same of an image that is read.
        behind: ids of the words in the block behind the codes.
        unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    spaces: ClassVar = (Codes, Vectors)
    edits: ClassVar[bool] = True
    alphabet: Alphabet

    def __init__(
        self,
        context: HeadContext,
        *,
        alphabet: Alphabet,
        steps: Cells = 12,
        schedule: str = "cosine",
        cells: bool = True,
        before: list[int] = [],  # noqa: B006
        before_read: list[int] = [],  # noqa: B006
        behind: list[int] = [],  # noqa: B006
        unconditional: Chance = 0.1,
    ):
        super().__init__()
        refuse_strays(self, alphabet)
        try:
            masked_share(schedule, torch.zeros(()))
        except ValueError as error:
            raise RecipeError(f"order {self.name!r}: {error}") from None
        self.space, self.alphabet, self.unconditional = context.space, alphabet, unconditional
        self.steps, self.schedule = steps, schedule
        self.before, self.before_read, self.behind = list(before), list(before_read), list(behind)
        _check_words(context.vocabulary, [*before, *before_read, *behind])
        self._embed_words = context.vocabulary.embed
        self.cells = cell_embedding(context.space.length, context.width) if cells else None
        vectors = isinstance(context.space, Vectors)
        self.mask_vector = nn.Parameter(torch.randn(context.width) * 0.02) if vectors else None

    @classmethod
    def symbols(cls, space: Space) -> int:
        return super().symbols(space) + isinstance(space, Codes)  # the mask of vectors is this order's own

    @property
    def mask(self) -> float:
        """What stands for a value that is not known: the number behind the last code, or vectors that are none."""
        return self.space.size if isinstance(self.space, Codes) else math.nan

    def unknown(self, values: Shaped[Tensor, "n k"]) -> Bool[Tensor, "n k"]:
        return values == self.mask if isinstance(self.space, Codes) else values.isnan().any(-1)

    def layout(self) -> SpanLayout:
        return self._layout(len(self.before))

    def read_layout(self) -> SpanLayout:
        return self._layout(len(self.before_read))

    def _layout(self, before: int) -> SpanLayout:
        length = before + self.space.length + len(self.behind)
        cells = [(row, column) for _, row, column in raster(*self.space.grid)]
        return SpanLayout(
            opens=(True,) + (False,) * (length - 1),
            exposed=(True,) * length,
            rows=tuple(range(before, before + self.space.length)),
            # A word stands at the cell beside it.
            coordinates=tuple(
                (i, *cells[min(max(i - before, 0), self.space.length - 1)]) for i in range(length)
            ),
        )

    def prepare(self, target: Shaped[Tensor, "n gh gw"]) -> Span:
        """Embeddings of the images with a random share of values masked; the targets are the masked values."""
        check_target(target, self.space)
        flat = target.flatten(1, 2)
        masked = self._masked(flat)
        return Span(self.embed(_filled(flat, masked, self.mask)), _filled(flat, ~masked, self._ignored))

    def embed_read(self, target: Shaped[Tensor, "n gh gw"]) -> Float[Tensor, "n s d"]:
        check_target(target, self.space)
        return self._within(target.flatten(1, 2), self.before_read)

    @property
    def _ignored(self) -> float:
        """The target of a value that is not masked."""
        return IGNORE if isinstance(self.space, Codes) else math.nan

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        masked = span.targets != IGNORE if isinstance(self.space, Codes) else ~span.targets.isnan().any(-1)
        shares = (1 / masked.sum(1, keepdim=True)).expand(masked.shape)[masked]
        total = self.alphabet.loss(hidden[masked], span.targets[masked], shares)
        return {self.alphabet.counted_as: Loss(total, total.new_tensor(float(len(masked))))}

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw all cells at once, again and again; nothing that is read is kept.

        The temperature is that of the noise on the confidence that decides which codes stay; each step multiplies
        it by the share of steps that remain, as in Show-o. Codes are drawn as likely as they are; at 0 they are
        the likeliest and the surest stay. Of vectors it is the alphabet's.

        Values that are retained are known from the first pass on, and all others see them.
        """
        images = count_images(start, sampling.guidance, self.unconditional)
        retained = progress.retained if progress is not None else None
        count = self.space.length if retained is None else int(retained.redrawn.sum())
        values, steps = self._begun(images, start, retained), 0
        if progress is not None and progress.values is not None:
            values, steps = progress.values, progress.steps
        rows = torch.tensor(list(self.layout().rows), device=start.device)
        step = self._step if isinstance(self.space, Codes) else self._vector_step
        for done in range(steps + 1, self.steps + 1):
            block = doubled(self.embed(values), sampling.guidance)
            hidden = (yield Ask(block, keep=False))[:, rows]
            values = step(hidden, values, count, done, sampling, generators)
            if progress is not None:
                progress.note(values, done)
        return rearrange(values, "n (gh gw) ... -> n gh gw ...", gh=self.space.grid[0])

    def _begun(
        self, images: int, start: Float[Tensor, "r d"], retained: Retained | None
    ) -> Shaped[Tensor, "n k"]:
        """Values none of which is known but those that are retained."""
        width = () if isinstance(self.space, Codes) else (self.space.width,)
        nothing = torch.full((images, self.space.length, *width), self.mask, device=start.device)
        if retained is None:
            return nothing
        unknown = retained.redrawn.to(start.device).view(-1, *[1] * len(width))
        return torch.where(unknown, nothing, retained.values.to(nothing))

    def _step(
        self,
        hidden: Float[Tensor, "r k d"],
        codes: Int[Tensor, "n k"],
        count: int,
        done: int,
        sampling: Sampling,
        generators: Generators | None,
    ) -> Int[Tensor, "n k"]:
        """The codes that stay when `done` steps are done, of `count` to be drawn, the mask's elsewhere."""
        as_likely = replace(sampling, temperature=float(sampling.temperature > 0))
        proposed, chances = self.alphabet.draw(hidden, as_likely, generators)
        assert chances is not None
        unknown = self.unknown(codes)
        drawn = torch.where(unknown, proposed, codes)
        if done == self.steps:
            return drawn
        remaining = self._remaining(unknown, count, done)
        confidence = chances.clamp(min=1e-20).log().masked_fill(~unknown, KNOWN)
        shares = (1 - step / self.steps for step in range(1, done + 1))
        noise = math.prod(shares, start=sampling.temperature)
        return drawn.masked_fill(unsure(confidence, remaining, noise, generators), self.mask)

    def _vector_step(
        self,
        hidden: Float[Tensor, "r k d"],
        vectors: Float[Tensor, "n k c"],
        count: int,
        done: int,
        sampling: Sampling,
        generators: Generators | None,
    ) -> Float[Tensor, "n k c"]:
        """The vectors with those of some more cells: at random which; without generators row by row."""
        unknown = self.unknown(vectors)
        left = int(unknown.sum(1)[0]) if len(vectors) else 0  # of each image as many
        now = left if done == self.steps else left - int(self._remaining(unknown, count, done)[0])
        if not now:
            return vectors
        places = torch.arange(self.space.length, device=vectors.device).expand(len(vectors), -1)
        turn = places if generators is None else generators.uniform(self.space.length, device=vectors.device)
        chosen = turn.float().masked_fill(~unknown, torch.inf).argsort(1)[:, :now, None]
        own = hidden.gather(1, doubled(chosen, sampling.guidance).expand(-1, -1, hidden.shape[2]))
        drawn = self.alphabet.draw(own, sampling, generators).values
        return vectors.scatter(1, chosen.expand_as(drawn), drawn)

    def _remaining(self, unknown: Bool[Tensor, "n k"], count: int, done: int) -> Int[Tensor, "n 1"]:
        """How many of `count` values of each image are not known behind a step that is not the last."""
        # The schedule in single precision, as the originals: at a whole number its floor decides.
        share = torch.tensor(done / self.steps)
        remaining = (count * masked_share(self.schedule, share)).floor().long().to(unknown.device)
        return torch.minimum(unknown.sum(1, keepdim=True) - 1, remaining).clamp(min=1)

    def embed(self, values: Shaped[Tensor, "n k"]) -> Float[Tensor, "n s d"]:
        """What stands at an image's positions; `mask` is the value of a cell that is not known."""
        return self._within(values, self.before)

    def _within(self, values: Shaped[Tensor, "n k"], before: Sequence[int]) -> Float[Tensor, "n s d"]:
        embeddings = at_cells(self._embed_values(values), self.cells)
        around = [
            self._embed_words(torch.tensor(words, device=values.device).repeat(len(values), 1))
            for words in (before, self.behind)
            if words
        ]
        if not around:
            return embeddings
        parts = [*around[: bool(before)], embeddings, *around[bool(before) :]]
        return torch.cat([part.to(embeddings.dtype) for part in parts], 1)

    def _embed_values(self, values: Shaped[Tensor, "n k"]) -> Float[Tensor, "n k d"]:
        if self.mask_vector is None:
            return self.alphabet.embed(values)
        unknown = self.unknown(values)[..., None]
        embeddings = self.alphabet.embed(values.nan_to_num())
        return torch.where(unknown, self.mask_vector.to(embeddings.dtype), embeddings)

    def _masked(self, values: Shaped[Tensor, "n k"]) -> Bool[Tensor, "n k"]:
        """Which values are masked: at least one an image, at random places."""
        draws = training_numbers(values, (1 + values.shape[1],))  # one sets how many are masked
        count = (self.space.length * masked_share(self.schedule, draws[:, :1])).round().clamp(min=1)
        return draws[:, 1:].argsort(1).argsort(1) < count


def _check_words(vocabulary: LanguageVocabulary, ids: Sequence[int]) -> None:
    wrong = [id for id in ids if not 0 <= id < vocabulary.vocabulary_size]
    if wrong:
        raise RecipeError(
            f"order 'masked': the word {wrong[0]} is none of the language model's ids, 0 to "
            f"{vocabulary.vocabulary_size - 1}"
        )


def _filled(values: Shaped[Tensor, "n k"], where: Bool[Tensor, "n k"], value: float) -> Shaped[Tensor, "n k"]:
    return values.masked_fill(where.view(*where.shape, *[1] * (values.ndim - 2)), value)
