"""Networks that predict what stands between a noisy image and its condition."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.decoders.conditions import Condition
from chiasm.parts import Part

PIXELS = 3  # channels of images where there is no autoencoder


class Denoiser(Part, nn.Module, slot="denoiser"):
    """Interface. Built as `Denoiser(channels, source_channels, *, options)`.

    channels: of the noisy images or latents. source_channels: of the image to change, concatenated; 0 = none.
    token_width: of the condition's tokens.
    pooled_width: of the condition's pooled vector (`text_embeds`), which stands beside sizes (`time_ids`); None =
        it reads neither.
    phrase_width: of the condition's `phrases`, which stand beside `boxes`; None = it reads no boxes.
    keeps_parts: a generation draws into parts of the source, and holds the others to it (`keeps`).
    """

    channels: int
    token_width: int
    pooled_width: int | None = None
    phrase_width: int | None = None
    keeps_parts: bool = False

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "n c h w"], times: Tensor, condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        """The prediction of the scheduler's kind. times: one for all, or one an image."""

    def gates(self, steps: int) -> list[float]:
        """How far its layers that read boxes are open at each step of a generation (`Condition.gates`)."""
        return [1.0] * steps

    def source(
        self, latents: Float[Tensor, "n c h w"], own_scale: Float[Tensor, "n c h w"], condition: Condition
    ) -> Float[Tensor, "n c2 h w"]:
        """What it reads of an image to change.

        latents: the image's, as they are denoised. own_scale: the same in the autoencoder's own scale, as
            InstructPix2Pix and SEED-X take them.
        """
        return own_scale

    def keeps(self, condition: Condition, grid: tuple[int, int]) -> Float[Tensor, "n 1 h w"] | None:
        """1 where the source is put back before each step of a generation, 0 where it draws; None = it draws
        everywhere. grid: rows and columns of the latents.
        """
        return None
