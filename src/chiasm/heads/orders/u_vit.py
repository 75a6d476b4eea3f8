"""All positions of an image denoised together, between shallow networks before and behind the language model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.heads import (
    Alphabet,
    AnyAlphabet,
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
from chiasm.heads.denoising import TokenDenoising
from chiasm.heads.noise import first_noise
from chiasm.heads.projection import example_tokenizer
from chiasm.heads.spans import at_cells, cell_embedding, check_target, count_images, counted, doubled
from chiasm.heads.straight_line import StraightLine
from chiasm.heads.u_vit import LAST, FlowDecoder, FlowEncoder, NoisyCells, PreciseNorm
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.nn.training_noise import TrainingNoise
from chiasm.parts.bounds import Cells, Chance, Count, Epsilon, Kernel, Positive, Width
from chiasm.tokenizers.spaces import Space, Vectors


class UViT(Order, name="u_vit"):
    """Rectified flow through the language model (JanusFlow, arXiv 2411.07975).

    A shallow convolutional network makes cells of noisy latents, the language model reads them, causally, behind a
    token that says how far they are denoised, and a second network makes the latents' velocity of its hidden states
    and of the first network's features. An image is drawn by following the velocity from noise (time 0) to the
    image (time 1), each step a pass over all positions. The time's token stands where a begin marker would: give
    the language model `draw_marker: null`.

    In training each image is seen at one random time, and the loss is the squared error of the velocity, which is
    the image less the noise.

    Args:
        alphabet: what a latent's velocity is learnt by; it is built on what the second network says.
        predicts: velocity; or x, the image itself, which points the way just as well and which networks too narrow
            for the noise can predict (arXiv 2511.13720).
        width: channels of the first network.
        decoder_width: channels of what the second network reads of the hidden states; null = `width`.
        stride: latents along the side of the square that becomes one position: 2, 4, 8 ...
        kernel: side of the square of latents that a position reads; null = the stride.
        padding: rows of zeros round the latents; null = as many as give one position a square.
        depth: blocks of the first network.
        decoder_depth: blocks of the second network; null = `depth`.
        bias: of the networks' layers.
        epsilon: of the networks' norms.
        hidden_epsilon: of the norm of the hidden states.
        cells: add a learnt embedding of its cell to what stands at a position; without it, as in the original, only
            the language model's positions and the edges of the first network's convolutions tell cells apart.
        steps: passes of the language model that draw an image.
        times: how the random times of training are spread: `uniform`, or `logit_normal`, with most in the middle
            (arXiv 2403.03206).
        shift: above 1 more of the steps, and of the times at which it learns, stand near the noise, where an image
            is known by its words alone.
        unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    spaces: ClassVar = (Vectors,)
    reads_codes: ClassVar[bool] = False
    alphabet: Alphabet

    def __init__(
        self,
        context: HeadContext,
        *,
        alphabet: Alphabet,
        predicts: Literal["velocity", "x"] = "velocity",
        width: Width = 768,
        decoder_width: Width | None = None,
        stride: Cells = 2,
        kernel: Kernel | None = None,
        padding: Count | None = None,
        depth: Count = 2,
        decoder_depth: Count | None = None,
        bias: bool = True,
        epsilon: Epsilon = 1e-6,
        hidden_epsilon: Epsilon = 1e-6,
        cells: bool = False,
        steps: Cells = 30,
        times: Literal["uniform", "logit_normal"] = "logit_normal",
        shift: Positive = 1.0,
        unconditional: Chance = 0.1,
    ):
        super().__init__()
        if isinstance(alphabet, TokenDenoising):
            raise RecipeError(
                f"order 'u_vit' denoises, and alphabet {alphabet.name!r} would once more: use 'regression'"
            )
        self.alphabet, self.space, self.unconditional = alphabet, context.vectors, unconditional
        self.steps = steps
        self.path = StraightLine(times == "logit_normal", shift, velocity=predicts == "velocity")
        channels, kernel = context.vectors.width, kernel or stride
        self.shape = (*context.vectors.grid, channels)
        padding = -(-(kernel - stride) // 2) if padding is None else padding
        spoken, depths = decoder_width or width, (depth, depth if decoder_depth is None else decoder_depth)
        self.grid = _grid(self.space.grid, stride, kernel, padding)
        self.encoder = FlowEncoder(
            channels, width, context.width, stride=stride, kernel=kernel, padding=padding, depth=depths[0],
            bias=bias, epsilon=epsilon,
        )  # fmt: skip
        self.input = nn.Linear(width, context.width)
        self.cells = cell_embedding(math.prod(self.grid), context.width) if cells else None
        self.norm = PreciseNorm(context.width, eps=hidden_epsilon)
        self.output = nn.Linear(context.width, spoken)
        self.decoder = FlowDecoder(
            channels, spoken, width, context.width, doublings=stride.bit_length() - 1, depth=depths[1],
            bias=bias, epsilon=epsilon,
        )  # fmt: skip

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"alphabet": {"type": "regression", "depth": 0}, "width": 8, "depth": 1, "steps": 3}

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        return example_tokenizer()

    @classmethod
    def symbols(cls, space: Space) -> int:
        return 0

    @classmethod
    def sampled_with(cls, alphabet: type[AnyAlphabet]) -> frozenset[str]:
        """The alphabet's, and the temperature, which scales the noise that an image begins as."""
        return alphabet.sampled_by | {"temperature"}

    @classmethod
    def inner(cls, spec: Mapping[str, Any], context: HeadContext) -> dict[str, tuple[Any, ...]]:
        """The alphabet reads velocities."""
        return super().inner(spec, replace(context, width=context.vectors.width))

    def layout(self) -> SpanLayout:
        """The time, then the cells row by row."""
        cells = raster(*self.grid)
        length = 1 + len(cells)
        return SpanLayout(
            opens=(True,) * length,
            exposed=(True,) * length,
            rows=tuple(range(1, length)),
            coordinates=((0, 0, 0), *((1 + i, row, column) for i, row, column in cells)),
        )

    def prepare(self, target: Float[Tensor, "n gh gw c"]) -> Span:
        """Images at random times between noise and themselves; the targets are their velocities, or they."""
        check_target(target, self.space)
        random = TrainingNoise(target)
        times = self.path.times(random.uniform())
        return self.between(target.float(), random.normal(*target.shape[1:]), times)

    def between(
        self,
        target: Float[Tensor, "n gh gw c"],
        noise: Float[Tensor, "n gh gw c"],
        times: Float[Tensor, " n"],
    ) -> Span:
        """Images on their way from noise (time 0) to themselves (time 1)."""
        spread = times[:, None, None]
        latents = self.path.noisy(target, noise, spread)
        noisy = self.encoder(latents.to(self.input.weight.dtype), LAST * times)
        return Span(self.embed(noisy), self.path.target(target, noise, spread), drawn=noisy)

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        spoken = self.spoken(hidden, span.drawn)
        return counted(self.alphabet, spoken.flatten(0, 2), span.targets.flatten(0, 2))

    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw by Euler steps; nothing that is read is kept. The temperature scales the noise."""
        images = count_images(start, sampling.guidance, self.unconditional)
        latents, done = self._begun(images, sampling, generators, progress)
        for step in self.path.steps(self.steps)[done:]:
            predicted = yield from self.predict(latents, step[0], sampling)
            latents = self.path.advance(latents, predicted, step, None)
            done += 1
            if progress is not None:
                progress.note(latents, done)
        return latents

    def predict(self, latents: Float[Tensor, "n gh gw c"], time: float, sampling: Sampling) -> Writing:
        """The velocity of latents at a time from 0 to below 1, or the image itself, with guidance."""
        rows = doubled(latents, sampling.guidance).to(self.input.weight.dtype)
        noisy = self.encoder(rows, torch.full((len(rows),), time * LAST, device=rows.device))
        hidden = yield Ask(self.embed(noisy), keep=False)
        return self.alphabet.draw(self.spoken(hidden[:, 1:], noisy), sampling).values.to(latents.dtype)

    def embed(self, noisy: NoisyCells) -> Float[Tensor, "n k d"]:
        """What stands at the positions of noisy images."""
        cells = self.input(rearrange(noisy.features, "n gh gw c -> n (gh gw) c"))
        return torch.cat([noisy.time[:, None], at_cells(cells, self.cells)], 1)

    def spoken(self, hidden: Float[Tensor, "n m d"], noisy: NoisyCells) -> Float[Tensor, "n gh gw c"]:
        """What the second network makes of the hidden states at the cells."""
        grid = rearrange(self.output(self.norm(hidden)), "n (gh gw) c -> n gh gw c", gh=self.grid[0])
        return self.decoder(grid, noisy)

    def _begun(
        self, images: int, sampling: Sampling, generators: Generators | None, progress: DrawingState | None
    ) -> tuple[Float[Tensor, "n gh gw c"], int]:
        """Where a drawing stands: at its noise, or where it was stopped."""
        if progress is not None and progress.values is not None:
            return progress.values, progress.steps
        device = self.input.weight.device
        return first_noise(images, self.shape, sampling, generators, device), 0


def _grid(grid: tuple[int, int], stride: int, kernel: int, padding: int) -> tuple[int, int]:
    """Rows and columns of positions; raises RecipeError unless each stands for one square of latents."""
    if stride == 1 or stride & (stride - 1):
        raise RecipeError(f"order 'u_vit' has stride {stride}; it must be 2, 4, 8 ...")
    cells = tuple((side + 2 * padding - kernel) // stride + 1 for side in grid)
    if any(side % stride for side in grid) or cells != tuple(side // stride for side in grid):
        raise RecipeError(
            f"order 'u_vit': a kernel of {kernel}, stride {stride} and padding {padding} make {cells[0]} x "
            f"{cells[1]} positions of {grid[0]} x {grid[1]} latents, which must be {grid[0] / stride:g} x "
            f"{grid[1] / stride:g}"
        )
    return cells[0], cells[1]
