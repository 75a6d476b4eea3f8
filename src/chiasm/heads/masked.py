"""Pictures as codes that are all predicted at once, again and again: masked tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from chiasm.bounds import Cells, Chance
from chiasm.errors import RecipeError
from chiasm.generators import Generators
from chiasm.heads import ImageHead, Span, SpanLayout, Step
from chiasm.heads.next_token import check_codes, count_pictures, draw, guided
from chiasm.losses import Loss
from chiasm.sequence import IGNORE

KNOWN = math.log(torch.finfo(torch.float32).max)  # confidence in a code that is no longer masked


class Round(NamedTuple):
    """One step of drawing. proposed: the code drawn for each cell, known or not; codes: those that stay, the
    mask's code elsewhere; before the last step."""

    proposed: Int[Tensor, "n k"]
    codes: Int[Tensor, "n k"]


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
            opens=(True,) + (False,) * rest, exposed=(True,) * (rest + 1), rows=tuple(range(rest + 1))
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

    @torch.no_grad()
    def sample(
        self,
        step: Step,
        *,
        guidance: float,
        temperature: float,
        top_k: int,
        generators: Generators | None,
    ) -> Int[Tensor, "n gh gw"]:
        """Codes of n pictures; nothing of them is kept by `step`.

        Args:
            guidance: 1 = none, else `without + guidance * (with - without)` the prompt, in logits.
            temperature: of the noise on the confidence that decides which codes stay; from step to step it is
                multiplied by the share of steps that are left, as in Show-o. Codes are drawn as likely as they are;
                at 0 they are the likeliest and the surest stay.
            top_k: draw among the k likeliest codes; 0 = all.
            generators: sources of the draws, one a picture.

        Raises:
            ChiasmError: when guidance is asked of a head that never saw an empty prompt.
        """
        *_, last = self.rounds(step, guidance, temperature, top_k, generators)
        return rearrange(last.codes, "n (gh gw) -> n gh gw", gh=self.grid[0])

    def rounds(
        self,
        step: Step,
        guidance: float,
        temperature: float,
        top_k: int,
        generators: Generators | None,
    ) -> Iterator[Round]:
        """The steps of drawing, one by one."""
        pictures = count_pictures(step, guidance, self.unconditional)
        codes = torch.full((pictures, self.length), self.mask, device=step.start.device)
        rows = torch.tensor(list(self.layout().rows), device=step.start.device)
        for done in range(1, self.steps + 1):
            block = self.embed(codes)
            hidden = step(block if guidance == 1 else torch.cat([block, block]), keep=False)[:, rows]
            logits = guided(self.logits(hidden), guidance)
            proposed = draw(logits, float(temperature > 0), top_k, generators)
            unknown = codes == self.mask
            drawn = torch.where(unknown, proposed, codes)
            if done < self.steps:
                # The schedule in single precision, as the originals: at a whole number its floor decides.
                share = torch.tensor(done / self.steps)
                left = (self.length * masked_share(self.schedule, share)).floor().long().to(codes.device)
                left = torch.minimum(unknown.sum(1, keepdim=True) - 1, left).clamp(min=1)
                temperature *= 1 - done / self.steps
                chances = logits.softmax(-1).gather(-1, drawn[..., None])[..., 0]
                confidence = chances.clamp(min=1e-20).log().masked_fill(~unknown, KNOWN)
                codes = torch.where(unsure(confidence, left, temperature, generators), self.mask, drawn)
            else:
                codes = drawn
            yield Round(proposed, codes)

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
