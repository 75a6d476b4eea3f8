"""The gradient of one optimiser step: sums and counts are added up over micro-batches and ranks, then divided."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from chiasm.distribution.processes import Ranks
from chiasm.encoders.resizing import antialiased
from chiasm.errors import ChiasmError, RecipeError, nearest
from chiasm.model import Model
from chiasm.nn.indivisible import reasons
from chiasm.nn.losses import Loss, objective
from chiasm.nn.stepwise import after_step, forget
from chiasm.recipe import Stage
from chiasm.sequence import IGNORE, PackedBatch
from chiasm.tokenizers import VideoTokenizer
from chiasm.training.codebook import CodebookWatch
from chiasm.training.image_terms import ImageTerms
from chiasm.training.optimiser import Optimiser


class Aim(ABC):
    """What a stage minimises, and what it does around the optimiser's steps.

    unit: of its speed. names: of its losses, where they are known beforehand.
    """

    unit = "tokens"
    names: set[str] | None = None

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Loss]: ...

    @abstractmethod
    def counts(self, batch: Any) -> dict[str, float]:
        """How many terms each loss of this batch will have, known before it is computed."""

    def before_step(self, done: float) -> None:  # noqa: B027 - most need not know
        """Before every step. done: the share of the stage's steps that are done."""

    def after_step(self) -> None:  # noqa: B027
        """After every step of the optimiser that was not skipped."""

    def forget(self) -> None:  # noqa: B027
        """After a step that was skipped: drop what was noted for `after_step`."""

    def modules(self) -> Iterable[nn.Module]:
        """The modules that compute the losses."""
        return ()

    def buffers(self) -> Iterable[Tensor]:
        """Tensors that learn without gradients; after each step all processes take the first one's."""
        return ()

    def health(self) -> dict[str, float]:
        """Figures for the progress line, apart from the losses."""
        return {}

    def warning(self) -> str | None:
        """A sentence about what goes wrong."""
        return None

    def finish(self) -> None:  # noqa: B027
        """When the stage's last step is done, before the model is saved."""


class DocumentsAim(Aim):
    """The losses of a model on packed documents."""

    def __init__(self, model: Model):
        self.model = model
        self._images = None if model.image_head is None else ImageTerms(model, model.image_head)
        images = set() if self._images is None else self._images.names
        masks = {} if model.mask_head is None else model.mask_head.terms([1])
        self.names = {"text", *images, *masks, *model.routing.names}

    def losses(self, batch: PackedBatch) -> dict[str, Loss]:
        return self.model.losses(batch)

    def after_step(self) -> None:
        if self.model.image_decoder is not None:  # which may average the weights with which it generates
            after_step(self.model.image_decoder)

    def modules(self) -> Iterable[nn.Module]:
        return (self.model,)

    def counts(self, batch: PackedBatch) -> dict[str, float]:
        counts = {"text": float((batch.labels != IGNORE).sum())}
        image, mask = batch.written.image, batch.written.mask
        if image is not None and self._images is not None:
            for name, terms in self._images.of(image, image.orphans(batch.positions)).items():
                counts[name] = counts.get(name, 0.0) + terms
        if mask is not None and self.model.mask_head is not None:
            counts |= self.model.mask_head.terms([len(target) for target in mask.targets])
        return {name: count for name, count in counts.items() if count}


class CaptionsAim(DocumentsAim):
    """The losses of a decoder that learns alone to draw after words; the language model does not run."""

    def __init__(self, model: Model):
        super().__init__(model)
        self._drawn = set() if self._images is None else self._images.names
        self.names = self._drawn

    def losses(self, batch: PackedBatch) -> dict[str, Loss]:
        return self.model.caption_losses(batch)

    def counts(self, batch: PackedBatch) -> dict[str, float]:
        counts = super().counts(batch)
        return {name: count for name, count in counts.items() if name in self._drawn}


class ImagesAim(Aim):
    """Losses on images or clips, equally many in every batch. learner: what computes them."""

    unit = "pictures"

    def __init__(self, learner: nn.Module):
        self.learner = learner
        self._per_image: dict[str, float] = {}

    def modules(self) -> Iterable[nn.Module]:
        return (self.learner,)

    def after_step(self) -> None:
        after_step(self.learner)

    def forget(self) -> None:
        forget(self.learner)

    def counts(self, batch: Tensor) -> dict[str, float]:
        if not self._per_image:
            self._per_image = self._try(batch[:1])
        return {name: terms * len(batch) for name, terms in self._per_image.items()}

    @abstractmethod
    def _losses(self, batch: Tensor) -> dict[str, Loss]: ...

    def _try(self, image: Tensor) -> dict[str, float]:
        """Terms of one image, found in evaluation mode, which leaves what learns as it is."""
        modes = [(module, module.training) for module in self.learner.modules()]
        self.learner.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            losses = self._losses(image)
        for module, mode in modes:
            module.training = mode
        return {name: float(loss.count) for name, loss in losses.items()}


class TokenizerAim(ImagesAim):
    """The losses of an image tokenizer."""

    def __init__(self, model: Model):
        assert model.image_tokenizer is not None
        super().__init__(model.image_tokenizer)
        self.tokenizer = model.image_tokenizer
        self._watch = CodebookWatch(model.image_tokenizer)
        self._images = 0  # since the last step

    def losses(self, batch: Tensor) -> dict[str, Loss]:
        self._images += len(batch)
        return self._losses(batch)

    def _losses(self, batch: Tensor) -> dict[str, Loss]:
        if batch.ndim == 5:
            assert isinstance(self.tokenizer, VideoTokenizer)
            return self.tokenizer.video_losses(batch)
        return self.tokenizer.losses(batch)

    def buffers(self) -> Iterable[Tensor]:
        return self.tokenizer.buffers()  # its codebook learns without gradients

    def health(self) -> dict[str, float]:
        return self.tokenizer.health()

    def after_step(self) -> None:
        super().after_step()
        self._watch.observe(self._images)
        self._images = 0

    def forget(self) -> None:
        super().forget()
        self._images = 0

    def warning(self) -> str | None:
        return self._watch.warning()


class DecoderAim(ImagesAim):
    """The losses of an image decoder on images and their codes, which the image tokenizer makes and which stay."""

    def __init__(self, model: Model):
        assert model.image_tokenizer is not None
        assert model.image_decoder is not None
        super().__init__(nn.ModuleList(model.image_decoder.learners().values()))
        self.tokenizer, self.decoder = model.image_tokenizer, model.image_decoder

    def losses(self, batch: Tensor) -> dict[str, Loss]:
        return self._losses(batch)

    def _losses(self, batch: Tensor) -> dict[str, Loss]:
        size = (self.tokenizer.size, self.tokenizer.size)
        read = batch if batch.shape[-2:] == size else antialiased(batch, size, "bicubic").clamp(0, 1)
        with torch.no_grad(), torch.autocast(batch.device.type, enabled=False):
            codes = self.tokenizer.encode(read)
        return self.decoder.losses(codes, batch)


@dataclass(frozen=True)
class StepOutcome:
    """The results of one step. losses: means by name; norm: of the gradient before clipping."""

    losses: dict[str, float] = field(default_factory=dict)
    objective: float = 0.0
    norm: float = 0.0
    skipped: bool = False


class TrainStep:
    """Gradients, clipping and the optimiser, for one list of micro-batches at a time.

    A step whose loss or gradient is not finite leaves the weights as they are and is reported as skipped.
    """

    def __init__(self, aim: Aim, optimiser: Optimiser, stage: Stage, ranks: Ranks, device: torch.device):
        self.aim, self.optimiser, self.stage, self.ranks, self.device = aim, optimiser, stage, ranks, device
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self.bf16 = uses_bf16(stage.precision, device)
        self._check_weights(aim.names)
        self._check_shared(stage.accumulate > 1, f"accumulates over {stage.accumulate} batches", False)
        self._check_shared(ranks.world > 1, f"runs in {ranks.world} processes", True)

    def __call__(self, batches: Sequence[Any]) -> StepOutcome:
        self.optimiser.zero_grad(set_to_none=True)
        batches = [batch.to(self.device) for batch in batches]
        # With one micro-batch the counts are taken as they come; with more they must be known beforehand.
        promised = self._promised(batches) if len(batches) > 1 else None
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        weights: dict[str, float] = {}
        for batch in batches:
            losses = self._losses(batch)
            own_counts = {name: float(loss.count) for name, loss in losses.items()}
            total = promised if promised is not None else self.ranks.totals(own_counts)
            if promised is not None:
                self._hold_to(self.aim.counts(batch), own_counts)
            value = objective(losses, total) if losses else None
            if value is not None and value.requires_grad:  # a batch may have no term for what is trained
                value.backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.sum.detach())
                counts[name] = counts.get(name, 0.0) + own_counts[name]
                weights[name] = loss.weight
        self.ranks.sum_gradients(self.parameters)
        return self._apply(self.ranks.gather((sums, counts, weights)))

    def _losses(self, batch: Any) -> dict[str, Loss]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            losses = self.aim.losses(batch)
        return {
            name: replace(loss, weight=loss.weight * self.stage.weights.get(name, 1.0))
            for name, loss in losses.items()
        }

    def _promised(self, batches: Sequence[Any]) -> dict[str, float]:
        promised: dict[str, float] = {}
        for batch in batches:
            for name, count in self.aim.counts(batch).items():
                promised[name] = promised.get(name, 0.0) + count
        return self.ranks.totals(promised)

    def _hold_to(self, promised: dict[str, float], counted: dict[str, float]) -> None:
        if promised != counted:
            raise ChiasmError(
                f"stage {self.stage.name!r} accumulates over {self.stage.accumulate} batches, for which the "
                f"number of loss terms must be known beforehand, but {promised} were promised, not {counted}; "
                "use accumulate: 1"
            )

    def _apply(self, reports: Sequence[tuple[dict[str, float], ...]]) -> StepOutcome:
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        weights: dict[str, float] = {}
        for each in reports:
            for name, value in each[0].items():
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0.0) + each[1][name]
                weights[name] = each[2][name]
        means = {name: sums[name] / max(counts[name], 1.0) for name in sums}
        value = sum(weights[name] * mean for name, mean in means.items())
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.stage.clip))
        if not (math.isfinite(value) and math.isfinite(norm)):
            self.optimiser.zero_grad(set_to_none=True)
            self.aim.forget()
            return StepOutcome(means, value, norm, skipped=True)
        self.optimiser.step()
        self.aim.after_step()
        return StepOutcome(means, value, norm)

    def _check_shared(self, several: bool, how: str, ranks: bool) -> None:
        """Raise RecipeError for a loss that is no sum over the batches of a step, where there are several."""
        for module in self.aim.modules() if several else ():
            for reason in reasons(module, ranks=ranks, rows=self.stage.rows):
                instead = "run it in one process" if ranks else "use accumulate: 1"
                raise RecipeError(f"stage {self.stage.name!r} {how}, but {reason}, or {instead}")

    def _check_weights(self, names: set[str] | None) -> None:
        if names is None:
            return
        for name in sorted(set(self.stage.weights) - names):
            raise RecipeError(
                f"stage {self.stage.name!r} weighs the loss {name!r}, which is not there{nearest(name, names)}"
            )


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether a stage runs in bf16 autocast: when the stage says so, or by default on hardware for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    tests = (
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(test() for test in tests if test is not None)
