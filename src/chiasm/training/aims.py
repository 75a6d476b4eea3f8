"""What a stage minimises: its losses by name, and how many terms each will have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Set
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from chiasm.encoders.resizing import antialiased
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.nn.losses import Loss
from chiasm.nn.stepwise import after_step, forget
from chiasm.sequence import IGNORE, PackedBatch
from chiasm.tokenizers import ImageTokenizer, VideoTokenizer
from chiasm.training.codebook import CodebookWatch
from chiasm.training.encoded_images import EncodedImages
from chiasm.training.image_terms import ImageTerms


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
        _check_names(model.modalities, self.names)
        self.names |= {*model.modalities}

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
        counts |= {name: float(len(signals.starts)) for name, signals in batch.written.signals.items()}
        return {name: count for name, count in counts.items() if count}


def _check_names(modalities: Iterable[str], losses: Set[str]) -> None:
    """Raise RecipeError for a modality that has the name of another part's loss: its own would be added to that."""
    for name in modalities:
        if name in losses:
            raise RecipeError(
                f"model.modalities names {name!r}, which is the name of a loss of this model too ("
                f"{', '.join(sorted(losses))}); give the modality another"
            )


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

    def counts(self, batch: Tensor | EncodedImages) -> dict[str, float]:
        if not self._per_image:
            self._per_image = self._try(batch[:1])
        return {name: terms * len(batch) for name, terms in self._per_image.items()}

    @abstractmethod
    def _losses(self, batch: Any) -> dict[str, Loss]: ...

    def _try(self, image: Tensor | EncodedImages) -> dict[str, float]:
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
    """The losses of an image decoder on images and their targets, which are the image tokenizer's and stay."""

    def __init__(self, model: Model):
        assert model.image_tokenizer is not None
        assert model.image_decoder is not None
        super().__init__(nn.ModuleList(model.image_decoder.learners().values()))
        self.tokenizer, self.decoder = model.image_tokenizer, model.image_decoder

    def losses(self, batch: Tensor | EncodedImages) -> dict[str, Loss]:
        return self._losses(batch)

    def _losses(self, batch: Tensor | EncodedImages) -> dict[str, Loss]:
        if isinstance(batch, EncodedImages):
            return self.decoder.losses(batch.targets, batch.images)
        return self.decoder.losses(targets_of(self.tokenizer, batch), batch)


def targets_of(tokenizer: ImageTokenizer, pixels: Float[Tensor, "n 3 h w"]) -> Tensor:
    """What an image tokenizer encodes images of any size as."""
    size = (tokenizer.size, tokenizer.size)
    read = pixels if pixels.shape[-2:] == size else antialiased(pixels, size, "bicubic").clamp(0, 1)
    with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        return tokenizer.encode(read)
