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
    """

    channels: int
    token_width: int
    pooled_width: int | None = None

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "n c h w"], times: Tensor, condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        """The prediction of the scheduler's kind. times: one for all, or one an image."""
