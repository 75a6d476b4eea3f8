"""Clips as one image of all their frames, and as one grid of codes."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from chiasm.data.clip import sheet_side
from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Tokens
from chiasm.tokenizers import ImageTokenizer, VideoTokenizer


class ContactSheet(ImageTokenizer, name="contact_sheet"):
    """The codes of a clip whose frames stand in one image (`chiasm.data.clip.ClipSheet`), the earliest grid on top.

    With it a language model writes moving pictures token by token (VideoPoet, arXiv 2312.14125), where others write
    images.

    Args:
        tokenizer: of moving pictures, which makes the codes.
        frames: of a clip.
    """

    def __init__(self, *, tokenizer: ImageTokenizer, frames: Tokens = 17):
        super().__init__()
        if not isinstance(tokenizer, VideoTokenizer):
            raise RecipeError(
                f"image_tokenizer 'contact_sheet' holds a tokenizer of moving pictures, which {tokenizer.name!r} "
                "is not; use open_magvit2_video or vqgan_video"
            )
        self.tokenizer, self.frames, self.side = tokenizer, frames, sheet_side(frames)
        self.sheet = frames
        self.decoding = tuple(f"tokenizer.{name}" for name in tokenizer.decoding)
        self.size, self.codebook_size = self.side * tokenizer.size, tokenizer.codebook_size
        self.grids = tokenizer.time_grids(frames)

    @property
    def grid(self) -> tuple[int, int]:
        rows, columns = self.tokenizer.grid
        return self.grids * rows, columns

    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n gh gw"]:
        return rearrange(self.tokenizer.encode_video(self.video(pixels)), "n u gh gw -> n (u gh) gw")

    def decode(self, codes: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n 3 h w"]:
        self.check_codes(codes)
        video = self.tokenizer.decode_video(self._by_grid(codes))
        over = self.side**2 - self.frames
        cells = functional.pad(video, (0, 0, 0, 0, 0, 0, 0, over), value=1.0)
        return rearrange(cells, "n (r s) c h w -> n c (r h) (s w)", r=self.side)

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Those of the clips."""
        return self.tokenizer.video_losses(self.video(pixels))

    def decoding_losses(
        self, codes: Int[Tensor, "n gh gw"], pixels: Float[Tensor, "n 3 h w"]
    ) -> dict[str, Loss]:
        """Those of the clips."""
        self.check_codes(codes)
        return self.tokenizer.video_decoding_losses(self._by_grid(codes), self.video(pixels))

    def video(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n t 3 h w"]:
        """The frames on sheets."""
        self.check_pixels(pixels)
        cells = rearrange(pixels, "n c (r h) (s w) -> n (r s) c h w", r=self.side, s=self.side)
        return cells[:, : self.frames]

    def _by_grid(self, codes: Int[Tensor, "n gh gw"]) -> Int[Tensor, "n u gh gw"]:
        return rearrange(codes, "n (u gh) gw -> n u gh gw", u=self.grids)

    def health(self) -> dict[str, float]:
        return self.tokenizer.health()

    def standalone(self) -> dict[str, Any]:
        own = self.tokenizer.standalone()
        return {"tokenizer": {**self.tokenizer.spec, **own}} if own else {}

    @classmethod
    def example(cls) -> dict[str, Any]:
        codes = {"type": "lfq", "bits": 4}
        network = {"size": 16, "width": 32, "multipliers": [1, 2, 2], "depth": 1, "quantizer": codes}
        return {"tokenizer": {"type": "open_magvit2_video", **network}, "frames": 3}
