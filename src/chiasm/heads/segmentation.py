"""What writes the masks of an image: the interface of mask heads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from chiasm.nn.losses import Loss
from chiasm.parts import Part

Pyramid = Sequence[Float[Tensor, "n gh gw c"]]  # features of images at several resolutions, finest first


class MaskContext(NamedTuple):
    """What mask heads are built with. width: of a hidden state. levels: channels of the encoder's pyramid."""

    width: int
    levels: tuple[int, ...]


class MaskPrediction(NamedTuple):
    """Masks that a head proposes, with the score of each: logits, both."""

    masks: Float[Tensor, "n q h w"]
    scores: Float[Tensor, "n q"]


class MaskHead(Part, nn.Module, slot="mask_head"):
    """Hidden states at mask positions to masks of the image before them. Built as `MaskHead(context, *, options)`.

    In the sequence `positions` places stand behind the question, where `embeddings` are read; what the language
    model makes of them decides the masks. The question is the mean of the hidden states of its words.

    positions: how many places masks take in the sequence, however many there are.
    most_masks: of a question; None = any number, which are written as one.
    mask_weight, dice_weight, score_weight: of the losses that `weighted` names.
    """

    positions: int
    most_masks: int | None = None
    mask_weight: float
    dice_weight: float
    score_weight: float

    @abstractmethod
    def embeddings(self) -> Float[Tensor, "q d"]:
        """What stands at the mask positions."""

    @abstractmethod
    def predict(
        self,
        hidden: Float[Tensor, "n q d"],
        pyramid: Pyramid,
        question: Float[Tensor, "n d"],
    ) -> MaskPrediction:
        """hidden: states at the mask positions of n questions. pyramid: of the image of each, finest first."""

    @abstractmethod
    def losses(
        self,
        hidden: Float[Tensor, "n q d"],
        pyramid: Pyramid,
        question: Float[Tensor, "n d"],
        targets: Sequence[Bool[Tensor, "m h w"]],
    ) -> dict[str, Loss]:
        """Losses by name, whose numbers of terms follow from the numbers of masks alone (see `terms`)."""

    def terms(self, masks: Sequence[int]) -> dict[str, float]:
        """How many terms each loss of questions with so many masks has."""
        written = float(sum(1 if self.most_masks is None else min(n, self.most_masks) for n in masks))
        return {"mask": written, "dice": written, "mask_score": float(len(masks))}

    def weighted(
        self, sums: Float[Tensor, " 3"], targets: Sequence[Bool[Tensor, "m h w"]]
    ) -> dict[str, Loss]:
        """The losses of masks, of their overlap and of scores, from the sum of each over questions."""
        counts = self.terms([len(target) for target in targets])
        weights = {"mask": self.mask_weight, "dice": self.dice_weight, "mask_score": self.score_weight}
        return {
            name: Loss(each, sums.new_tensor(counts[name]), weight)
            for (name, weight), each in zip(weights.items(), sums, strict=True)
        }
