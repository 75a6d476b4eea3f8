"""All positions of an image denoised together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.heads import (
    Ask,
    DrawingState,
    HeadContext,
    Order,
    Sampling,
    Span,
    SpanLayout,
    Writing,
    raster,
)
from chiasm.heads.denoising import TimeEmbedding, TokenDenoising
from chiasm.heads.noise import noise_like
from chiasm.heads.sampling import guided
from chiasm.heads.spans import at_cells, cell_embedding, check_target, count_images, doubled
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.nn.training_noise import training_numbers
from chiasm.parts.bounds import Chance, Multiplier
from chiasm.tokenizers.spaces import Space, Vectors


class Noisy(NamedTuple):
    """Images on their way from noise, and where on it they are."""

    values: Float[Tensor, "n gh gw c"]
    times: Float[Tensor, " n"]


class WholeImage(Order, name="whole"):
    """Diffusion or flow over an image with the language model as the network (Transfusion, arXiv 2408.11039; Bagel,
    2505.14683).

    An image is one attention block, which reads noisy vectors and, added to each, the time; its hidden states
    predict what leads to less noise, by way of an alphabet that denoises (`flow` or `diffusion`), and a draw is as
    many passes of the language model as that has steps. What stands behind an image does not see its noise.

    Args:
        alphabet: what leads to less noise, and in how many steps.
        patch: side of the squares of vectors that share a position.
        cells: add a learnt embedding of its cell to what stands at a position; without it only the language model's
            positions tell cells apart.
        unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    spaces: ClassVar = (Vectors,)
    space: Vectors
    alphabet: TokenDenoising

    def __init__(
        self,
        context: HeadContext,
        *,
        alphabet: TokenDenoising,
        patch: Multiplier = 1,
        cells: bool = True,
        unconditional: Chance = 0.1,
    ):
        super().__init__()
        self.alphabet = alphabet
        self.space, self.unconditional = context.vectors, unconditional
        self.patch = patch
        rows, columns = self.space.grid
        if rows % patch or columns % patch:
            raise RecipeError(
                f"order 'whole': {rows} x {columns} vectors cannot be cut into squares of {patch}; change its patch"
            )
        self.grid = rows // patch, columns // patch
        self.input = nn.Linear(self.space.width * patch**2, context.width)
        self.time = TimeEmbedding(context.width)
        self.cells = cell_embedding(self.grid[0] * self.grid[1], context.width) if cells else None

    @classmethod
    def symbols(cls, space: Space) -> int:
        return 0

    @classmethod
    def inner(cls, spec: Mapping[str, Any], context: HeadContext) -> dict[str, tuple[Any, ...]]:
        """The alphabet is handed the vectors of a position as one."""
        wide = replace(context.vectors, width=context.vectors.width * spec["patch"] ** 2)
        return {"alphabet": (replace(context, space=wide), cls.symbols(wide))}

    def layout(self) -> SpanLayout:
        return self._layout(exposed=False)

    def read_layout(self) -> SpanLayout:
        return self._layout(exposed=True)

    def prepare(self, target: Float[Tensor, "n gh gw c"]) -> Span:
        """Images at random times on their way from noise; the targets are what leads to less of it."""
        check_target(target, self.space)
        target = target.float()
        numbers = training_numbers(target, (1 + target[0].numel(),))
        times = self.alphabet.path.times(numbers[:, 0])
        noise = noise_like(numbers[:, 1:]).view_as(target)
        spread = times[:, None, None].expand(target.shape[:3])
        noisy = Noisy(self.alphabet.path.noisy(target, noise, spread), times)
        return Span(self.embed(noisy), self.alphabet.path.target(target, noise, spread), drawn=noisy)

    def embed_read(self, target: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        """An image that is only looked at has no noise."""
        check_target(target, self.space)
        clean = torch.full((len(target),), self.alphabet.path.clean, device=target.device)
        return self.embed(Noisy(target, clean))

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        """One term a position: the mean squared error of its vectors' numbers."""
        predicted = self.predict(hidden, span.drawn)
        errors = (predicted.float() - span.targets).square()
        return {self.alphabet.counted_as: Loss.of(self._patches(errors).mean(-1))}

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Denoise all positions, one ask a step; nothing that is read is kept."""
        images = count_images(start, sampling.guidance, self.unconditional)
        path, steps = self.alphabet.path, self.alphabet.path.steps(self.alphabet.step_count)
        done = 0
        if progress is not None and progress.values is not None:
            values, done = progress.values, progress.steps
        else:
            shape = (*self.space.grid, self.space.width)
            values = self.alphabet.noise(shape, start[:images], replace(sampling, guidance=1.0), generators)
        for step in steps[done:]:
            noisy = Noisy(values, torch.full((images,), step[0], device=start.device))
            hidden = yield Ask(doubled(self.embed(noisy), sampling.guidance), keep=False)
            predicted = self._guided(hidden, noisy, sampling.guidance)
            values = path.advance(values, predicted, step, self.alphabet.fresh(values, sampling, generators))
            done += 1
            if progress is not None:
                progress.note(values, done)
        return values

    def embed(self, noisy: Noisy) -> Float[Tensor, "n k d"]:
        """What stands at the positions of noisy images."""
        patches = self._patches(noisy.values).to(self.input.weight.dtype)
        return at_cells(self.input(patches), self.cells) + self.time(noisy.times)[:, None]

    def predict(self, hidden: Float[Tensor, "n m d"], noisy: Noisy) -> Float[Tensor, "n gh gw c"]:
        """What leads to less noise."""
        patches = self._patches(noisy.values)
        times = noisy.times[:, None].expand(patches.shape[:2])
        predicted = self.alphabet.network(patches, hidden, times)
        return rearrange(
            predicted, "n (gh gw) (p q c) -> n (gh p) (gw q) c", gh=self.grid[0], p=self.patch, q=self.patch
        )

    def _guided(
        self, hidden: Float[Tensor, "r m d"], noisy: Noisy, guidance: float
    ) -> Float[Tensor, "n gh gw c"]:
        predictions = [self.predict(rows, noisy) for rows in hidden.chunk(1 if guidance == 1 else 2)]
        return guided(torch.cat(predictions).float(), guidance)

    def _patches(self, values: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n k d"]:
        return rearrange(values, "n (gh p) (gw q) c -> n (gh gw) (p q c)", p=self.patch, q=self.patch)

    def _layout(self, *, exposed: bool) -> SpanLayout:
        count = self.grid[0] * self.grid[1]
        return SpanLayout(
            opens=(True,) + (False,) * (count - 1),
            exposed=(exposed,) * count,
            rows=tuple(range(count)),
            coordinates=raster(*self.grid),
        )

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"alphabet": {"type": "flow"}, "patch": 2}
