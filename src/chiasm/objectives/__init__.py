"""Objectives of pre-training: losses of images, and of the texts and labels that belong to them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.nn.losses import Loss
from chiasm.objectives.health import effective_rank, spread
from chiasm.parts import Part
from chiasm.views import Size

if TYPE_CHECKING:
    from chiasm.model import Model

LEAST_SPREAD = 0.02  # of representations that still tell images apart; see `health.spread`
PATIENCE = 20  # steps in a row below it that are called a collapse


@dataclass(frozen=True)
class Described:
    """A batch of images with their texts and labels.

    pixels: the view of each image that the encoder sees. texts: one of each image (a caption, a label).
    labels: what is in each image, by name: one name or several.
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

    size: of the images, in pixels. labels: finds all names in the labels of the data, sorted.
    """

    model: Model
    size: Size
    labels: Callable[[], list[str]]


class Objective(Part, nn.Module, slot="objective"):
    """Interface. Built as `Objective(setting, *, options)` when its stage begins, dropped when the stage ends.

    Its parameters are its own weights, trained as `objective`; modules that do not learn (teachers) stand in a
    `Fixed`. All that it must remember is in its state dict, so that a stage that was killed goes on exactly.

    names: of its losses. trains: slots of the model that it can train. hands: slots that it changes when it ends.
    learns: whether it has weights of its own.
    done: the share of the stage's steps that are done, for schedules; set before every step.
    cut_texts: how many texts of the last batch were longer than the objective reads, which cut them.
    """

    names: ClassVar[tuple[str, ...]]
    trains: ClassVar[tuple[str, ...]] = ("encoder",)
    hands: ClassVar[tuple[str, ...]] = ()
    learns: ClassVar[bool] = True
    done: float = 0.0
    cut_texts: int = 0
    dull: Int[Tensor, ""]

    def __init__(self) -> None:
        super().__init__()
        # Steps in a row whose representations were nearly the same for all images.
        self.register_buffer("dull", torch.zeros((), dtype=torch.long))
        self._representations: Float[Tensor, "n c"] | None = None

    @abstractmethod
    def losses(self, model: Model, batch: Described) -> dict[str, Loss]:
        """Losses by name. What `after_step` needs of the batch is remembered until then."""

    def terms(self, batch: Described) -> dict[str, float]:
        """How many terms each loss of this batch will have: by default one an image."""
        return {name: float(len(batch)) for name in self.names}

    def observe(self, representations: Float[Tensor, "n c"]) -> None:
        """Remember the representation of each image of the batch, for the health figures."""
        self._representations = representations.detach().float()

    def after_step(self, model: Model) -> None:
        """Updates without gradients (moving averages), after every step of the optimiser."""
        dull = self._representations is not None and len(self._representations) > 1 and self.is_dull()
        self.dull = self.dull + 1 if dull else torch.zeros_like(self.dull)

    def forget(self) -> None:
        """After a step that was skipped: drop what was remembered for `after_step`."""

    def is_dull(self) -> bool:
        """Whether the last batch's representations no longer tell its images apart."""
        return self._representations is not None and spread(self._representations) < LEAST_SPREAD

    def health(self) -> dict[str, float]:
        """Figures of the last batch for the progress line: representations' `spread` and `rank`, texts cut."""
        cut = {"cut_texts": float(self.cut_texts)} if self.cut_texts else {}
        if self._representations is None or len(self._representations) < 2:
            return cut
        return {"spread": spread(self._representations), "rank": effective_rank(self._representations)} | cut

    def collapse(self) -> str | None:
        """A sentence once the representations have been the same for all images for some steps."""
        if self.dull < PATIENCE:
            return None
        return (
            f"objective {self.name!r} has collapsed: for {int(self.dull)} steps the encoder's output has been "
            "nearly the same for every image; what it learns from here on is worth nothing"
        )

    def hand_over(self, model: Model) -> None:
        """When the stage ends, copy those of the objective's own weights that are retained into the model."""


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
