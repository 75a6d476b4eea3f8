"""What a stage of pre-training asks of pictures and of the words that belong to them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.losses import Loss
from chiasm.objectives.health import effective_rank, spread
from chiasm.parts import Part
from chiasm.views import Size

if TYPE_CHECKING:
    from chiasm.model import Model

LEAST_SPREAD = 0.02  # of representations that still tell pictures apart; see `health.spread`
PATIENCE = 20  # steps in a row below it that are called a collapse


@dataclass(frozen=True)
class Described:
    """Pictures with what belongs to them.

    pixels: the view of each picture that the encoder sees. texts: the words said of each (a caption, a label).
    labels: what is in each picture, by name: one name or several.
    """

    pixels: Float[Tensor, "n 3 h w"]
    texts: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> Described:
        return replace(self, pixels=self.pixels.to(device))


@dataclass(frozen=True)
class Setting:
    """What an objective is built for: the model at the start of the stage, and the stage's data.

    size: of the pixels that it will be shown. labels: finds all names in the labels of the data, sorted.
    """

    model: Model
    size: Size
    labels: Callable[[], list[str]]


class Objective(Part, nn.Module, slot="objective"):
    """Interface. Built as `Objective(setting, *, options)` when its stage begins, dropped when the stage ends.

    Its parameters are its own weights, trained as `objective`; modules that do not learn (teachers) stand in a
    `Fixed`. All that it must remember is in its state dict, so that a stage that was killed goes on exactly.

    names: of its losses. trains: slots of the model that it can train. hands: slots that it changes when it ends.
    done: the share of the stage's steps that are done, for schedules; set before every step.
    cut_texts: how many texts of the last batch were longer than the objective reads, which cut them.
    """

    names: ClassVar[tuple[str, ...]]
    trains: ClassVar[tuple[str, ...]] = ("encoder",)
    hands: ClassVar[tuple[str, ...]] = ()
    done: float = 0.0
    cut_texts: int = 0
    dull: Int[Tensor, ""]

    def __init__(self) -> None:
        super().__init__()
        # Steps in a row whose representations were nearly the same for all pictures.
        self.register_buffer("dull", torch.zeros((), dtype=torch.long))
        self._seen: Float[Tensor, "n c"] | None = None

    @abstractmethod
    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        """Losses by name. What it wants to remember of the batch is kept until `after_step`."""

    def terms(self, batch: Described) -> dict[str, float]:
        """How many terms each loss of this batch will have: by default one a picture."""
        return {name: float(len(batch)) for name in self.names}

    def look(self, representations: Float[Tensor, "n c"]) -> None:
        """Show the health figures what stands for each picture of the batch."""
        self._seen = representations.detach().float()

    def after_step(self, model: Model) -> None:
        """What is learnt without gradients, behind every step of the optimiser (moving averages)."""
        dull = self._seen is not None and len(self._seen) > 1 and self.is_dull()
        self.dull = self.dull + 1 if dull else torch.zeros_like(self.dull)

    def forget(self) -> None:
        """Behind a step that was skipped: what was kept for `after_step` is dropped."""

    def is_dull(self) -> bool:
        """Whether the last batch's representations tell its pictures apart no more."""
        return self._seen is not None and spread(self._seen) < LEAST_SPREAD

    def health(self) -> dict[str, float]:
        """Figures of the last batch for the progress line: representations' `spread` and `rank`, texts cut."""
        cut = {"cut_texts": float(self.cut_texts)} if self.cut_texts else {}
        if self._seen is None or len(self._seen) < 2:
            return cut
        return {"spread": spread(self._seen), "rank": effective_rank(self._seen)} | cut

    def collapse(self) -> str | None:
        """A sentence once the representations have been the same for all pictures for some steps."""
        if self.dull < PATIENCE:
            return None
        return (
            f"objective {self.name!r} has collapsed: for {int(self.dull)} steps the encoder has said nearly the "
            "same of every picture; what it learns from here on is worth nothing"
        )

    def hand_over(self, model: Model) -> None:
        """Give the model, when the stage ends, what of the objective's own weights is to be kept."""


class Fixed(nn.Module):
    """A module that never learns: no gradients, always in evaluation mode, saved with the objective."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Fixed:
        self.training = False
        return self

    @torch.no_grad()
    def forward(self, *args: Any) -> Any:
        return self.module(*args)
