"""Pictures as codes that are all predicted at once, again and again: masked tokens."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.bounds import Cells, Chance
from chiasm.errors import RecipeError
from chiasm.generators import Generators
from chiasm.heads import Ask, DrawingState, ImageHead, Sampling, Span, SpanLayout, Writing, raster
from chiasm.heads.next_token import check_codes, count_images, doubled
from chiasm.heads.sampling import choose, guided
from chiasm.losses import Loss
from chiasm.sequence import IGNORE

KNOWN = math.log(torch.finfo(torch.float32).max)  # confidence in a code that is no longer masked


class Masked(ImageHead, name="masked"):
    """Masked prediction of image codes (MaskGIT, arXiv 2202.04200; MAGVIT-v2, arXiv 2310.05737).

    A picture is one attention block, in which all cells see each other. In training a random share of its codes,
    set by the schedule, is replaced by a mask, and the hidden state at each masked cell predicts the code there.
    A picture is drawn in a few passes over the whole block: each proposes every masked code and keeps those it is
    surest of. Embedding and output layer are separate from the language model's.

    The loss has one term a picture, the mean over its masked codes. Without gradients the mask is a function of
    the codes alone, so that an evaluation can be repeated.

    Args:
        steps: passes of the language model that draw a picture.
        schedule: share of masked codes from first step to last: cosine, linear, sigmoid, or powX = 1 - t^X (pow2).
        unconditional: share of training pictures that follow an empty prompt, for guidance (0 = never).
    """

    shows = True

    def __init__(
        self,
        width: int,
        codebook_size: int,
        grid: tuple[int, int],
        *,
        steps: Cells = 12,
        schedule: str = "cosine",
        unconditional: Chance = 0.1,
    ):
        super().__init__()
        self._set_up(codebook_size, grid, steps, schedule, unconditional)
        self.codes = nn.Embedding(codebook_size + 1, width)  # the last row is the mask's
        self.cells = nn.Embedding(self.length, width)
        self.output = nn.Linear(width, codebook_size, bias=False)
        for layer in (self.codes, self.cells, self.output):
            nn.init.normal_(layer.weight, std=0.02)

    def _set_up(
        self, codebook_size: int, grid: tuple[int, int], steps: int, schedule: str, unconditional: float
    ) -> None:
        where = f"image_head {self.name!r}"
        try:
            masked_share(schedule, torch.zeros(()))
        except ValueError as error:
            raise RecipeError(f"{where}: {error}") from None
        self.codebook_size, self.grid, self.unconditional = codebook_size, grid, unconditional
        self.steps, self.schedule = steps, schedule

    @property
    def length(self) -> int:
        """Codes of a picture."""
        return self.grid[0] * self.grid[1]

    @property
    def mask(self) -> int:
        """What stands for a code that is not known: the number behind the last code."""
        return self.codebook_size

    def layout(self) -> SpanLayout:
        rest = self.length - 1
        return SpanLayout(
            opens=(True,) + (False,) * rest,
            exposed=(True,) * (rest + 1),
            rows=tuple(range(rest + 1)),
            coordinates=raster(*self.grid),
        )

    def prepare(self, codes: Int[Tensor, "n gh gw"]) -> Span:
        """Embeddings of the picture with a random share of its codes masked; the targets are the masked codes."""
        check_codes(codes, self.grid, self.codebook_size)
        flat = rearrange(codes, "n gh gw -> n (gh gw)")
        masked = self._masked(flat)
        return Span(self.embed(torch.where(masked, self.mask, flat)), torch.where(masked, flat, IGNORE))

    def show(self, codes: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n s d"]:
        check_codes(codes, self.grid, self.codebook_size)
        return self.embed(codes.flatten(1))

    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        masked = span.targets != IGNORE
        terms = self._errors(hidden[masked], span.targets[masked])
        share = (1 / masked.sum(1, keepdim=True)).expand(masked.shape)[masked]
        return {"image": Loss((terms * share).sum(), terms.new_tensor(float(len(masked))))}

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
        the likeliest and the surest stay.
        """
        images = count_images(start, sampling.guidance, self.unconditional)
        codes = torch.full((images, self.length), self.mask, device=start.device)
        steps = 0
        if progress is not None and progress.values is not None:
            codes, steps = progress.values, progress.steps
        rows = torch.tensor(list(self.layout().rows), device=start.device)
        for done in range(steps + 1, self.steps + 1):
            block = doubled(self.embed(codes), sampling.guidance)
            hidden = (yield Ask(block, keep=False))[:, rows]
            codes = self._step(hidden, codes, done, sampling, generators)
            if progress is not None:
                progress.note(codes, done)
        return rearrange(codes, "n (gh gw) -> n gh gw", gh=self.grid[0])

    def _step(
        self,
        hidden: Float[Tensor, "r k d"],
        codes: Int[Tensor, "n k"],
        done: int,
        sampling: Sampling,
        generators: Generators | None,
    ) -> Int[Tensor, "n k"]:
        """The codes that stay when `done` steps are done, the mask's elsewhere."""
        logits = guided(self.logits(hidden), sampling.guidance)
        proposed = choose(logits, replace(sampling, temperature=float(sampling.temperature > 0)), generators)
        unknown = codes == self.mask
        drawn = torch.where(unknown, proposed, codes)
        if done == self.steps:
            return drawn
        # The schedule in single precision, as the originals: at a whole number its floor decides.
        share = torch.tensor(done / self.steps)
        remaining = (self.length * masked_share(self.schedule, share)).floor().long().to(codes.device)
        remaining = torch.minimum(unknown.sum(1, keepdim=True) - 1, remaining).clamp(min=1)
        chances = logits.softmax(-1).gather(-1, drawn[..., None])[..., 0]
        confidence = chances.clamp(min=1e-20).log().masked_fill(~unknown, KNOWN)
        shares = (1 - step / self.steps for step in range(1, done + 1))
        noise = math.prod(shares, start=sampling.temperature)
        return torch.where(unsure(confidence, remaining, noise, generators), self.mask, drawn)

    def embed(self, codes: Int[Tensor, "n k"]) -> Float[Tensor, "n s d"]:
        """What stands at a picture's positions; `mask` is the code of a cell that is not known."""
        return self.codes(codes) + self.cells.weight

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s k"]:
        """Of the codes at the cells of the hidden states."""
        return self.output(hidden).float()

    def _errors(self, hidden: Float[Tensor, "m d"], codes: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        return functional.cross_entropy(self.logits(hidden), codes, reduction="none")

    def _masked(self, codes: Int[Tensor, "n k"]) -> Bool[Tensor, "n k"]:
        """Which codes are masked: at least one a picture, at random places."""
        draws = _draws(codes)
        count = (self.length * masked_share(self.schedule, draws[:, :1])).round().clamp(min=1)
        return draws[:, 1:].argsort(1).argsort(1) < count


def masked_share(schedule: str, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Share of codes that are masked when the share `t` of the steps is done. Raises ValueError."""
    if schedule == "cosine":
        return torch.cos(t * math.pi * 0.5)
    if schedule == "linear":
        return 1 - t
    if schedule == "sigmoid":  # between -3 and 3
        first, last = torch.tensor([-3.0, 3.0]).sigmoid()
        return (last - torch.sigmoid(t * 6 - 3)) / (last - first)
    if schedule.startswith("pow"):
        with suppress(ValueError):
            power = float(schedule.removeprefix("pow"))
            if 0 < power < math.inf:
                return 1 - t**power
    raise ValueError(
        f"the schedule is {schedule!r}; it must be cosine, linear, sigmoid or powX with X above 0"
    )


def unsure(
    confidence: Float[Tensor, "n k"],
    left: Int[Tensor, "n 1"],
    temperature: float,
    generators: Generators | None,
) -> Bool[Tensor, "n k"]:
    """The `left` cells of each picture with the least confidence, on which there is noise at a temperature."""
    if temperature > 0:
        assert generators is not None
        noise = generators.uniform(*confidence.shape[1:], device=confidence.device)
        confidence = confidence - temperature * torch.log(-torch.log(noise))
    return confidence < confidence.sort(-1).values.gather(1, left)


def _draws(codes: Int[Tensor, "n k"]) -> Float[Tensor, "n l"]:
    """Numbers in [0, 1): for each picture one that sets how many codes are masked, and one a code."""
    shape: Any = (codes.shape[0], codes.shape[1] + 1)
    if torch.is_grad_enabled():
        return torch.rand(shape, device=codes.device)
    rows = []
    weights = torch.arange(1, shape[1], device=codes.device)
    for seed in (codes * weights).sum(1).tolist():
        rows.append(torch.rand(shape[1], generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows).to(codes.device) if rows else torch.zeros(shape, device=codes.device)
