"""Open-MAGVIT2's tokenizer of moving pictures."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from chiasm.critics import Critic
from chiasm.errors import RecipeError
from chiasm.parts.bounds import Depth, Multipliers, Pixels, Width
from chiasm.tokenizers.autoencoder import VideoAutoencoder
from chiasm.tokenizers.magvit import CausalConv3d, MagvitDecoder, MagvitEncoder
from chiasm.tokenizers.quantizers import Quantizer


class OpenMagvit2Video(VideoAutoencoder, name="open_magvit2_video"):
    """Open-MAGVIT2's causal 3-D tokenizer (arXiv 2409.04410).

    The first frame has codes of its own, so a picture is a video of one frame; 1 + 4 k frames are 1 + k grids of
    codes with the default multipliers. The original's quantizer is `lfq`.

    Args:
        size: height and width of the frames in pixels.
        width: channels at full resolution, a multiple of 32.
        multipliers: of the width, a level each; resolution halves from each level to the next, and so does time
            where the upper level's multiplier is not 1.
        depth: residual blocks a level.
        quantizer: what makes codes of the latents; the encoder puts out as many channels as it takes.
        critics: what else is asked of its pictures in training: a perceptual loss, a discriminator.
    """

    def __init__(
        self,
        *,
        size: Pixels = 128,
        width: Width = 128,
        multipliers: Multipliers = [1, 2, 2, 4],  # noqa: B006
        depth: Depth = 4,
        quantizer: Quantizer,
        critics: list[Critic] = [],  # noqa: B006
    ):
        super().__init__(size=size, factor=2 ** (len(multipliers) - 1), quantizer=quantizer, critics=critics)
        self.frames = 2 ** sum(
            multiplier != 1 for multiplier in multipliers[:-1]
        )  # of a grid behind the first
        self.encoder = MagvitEncoder(width, multipliers, depth, quantizer.width, CausalConv3d)
        self.decoder = MagvitDecoder(width, multipliers, depth, quantizer.width, CausalConv3d)

    def time_grids(self, frames: int) -> int:
        if frames < 1 or (frames - 1) % self.frames:
            raise RecipeError(
                f"image_tokenizer {self.name!r} makes clips of 1 + {self.frames} k frames, not of {frames}"
            )
        return 1 + (frames - 1) // self.frames

    def video_latents(self, video: Float[Tensor, "n t 3 h w"]) -> Float[Tensor, "n u gh gw c"]:
        inner = rearrange(2 * video - 1, "n t c h w -> n c t h w")
        return rearrange(self.encoder(inner), "n c u gh gw -> n u gh gw c")

    def render_video(self, vectors: Float[Tensor, "n u gh gw c"]) -> Float[Tensor, "n t 3 h w"]:
        video = self.decoder(rearrange(vectors, "n u gh gw c -> n c u gh gw"))
        return rearrange(video, "n c t h w -> n t c h w").float() / 2 + 0.5

    @classmethod
    def example(cls) -> dict[str, Any]:
        codes = {"type": "lfq", "bits": 5}
        return {"size": 32, "width": 32, "multipliers": [1, 2, 2], "depth": 1, "quantizer": codes}
