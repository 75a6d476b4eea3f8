"""Image tokenizers: pixels to codes, or to vectors, and back."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts import Part
from chiasm.tokenizers.spaces import Codes, Refinement, Space, Vectors, check_codes


class ImageTokenizer(Part, nn.Module, slot="image_tokenizer"):
    """Interface of a tokenizer of codes; for one of vectors see `ContinuousTokenizer`.

    Codes are one grid, whatever the tokenizer: one with several scales puts the codes of all of them in one row,
    the coarsest first and each in raster order, and names the scales in `scales`.

    decodes: it makes pixels of its targets; else an image decoder of another kind must.
    learns: it can be trained.
    size: height and width in pixels of the pictures it encodes and decodes.
    codebook_size: number of different codes.
    codebooks: 1, or as many as there are scales, each of which has one of its own, numbered from 0.
    end: the code that ends a picture, where the number of codes varies; what stands behind it means nothing.
    sheet: of how many frames the sheets are (`chiasm.data.clip.ClipSheet`) that it makes codes of; None = it takes
        images.
    decoding: names of its modules that make pixels of codes, where they can learn alone.
    """

    decodes: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    size: int
    codebook_size: int
    codebooks: int = 1
    end: int | None = None
    sheet: int | None = None
    decoding: tuple[str, ...] = ()

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes of one picture."""

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of every scale, the coarsest first; one scale is the grid itself."""
        return (self.grid,)

    @property
    def space(self) -> Space:
        """What it makes."""
        scales = self.scales if len(self.scales) > 1 else None
        return Codes(self.grid, self.codebook_size, scales, self.end)

    @property
    def refinement(self) -> Refinement | None:
        """What one scale adds to the coarser ones, where codes are scales that refine each other."""
        return None

    @abstractmethod
    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n gh gw"]: ...

    @abstractmethod
    def decode(self, codes: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n 3 h w"]: ...

    @abstractmethod
    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Training losses by name: reconstruction, commitment, entropy, ..."""

    def decoding_losses(
        self, codes: Int[Tensor, "n gh gw"], pixels: Float[Tensor, "n 3 h w"]
    ) -> dict[str, Loss]:
        """Training losses by name of `decoding` alone, for codes that stay what they are."""
        raise RecipeError(f"image_tokenizer {self.name!r} has no decoder that learns alone")

    def check_codes(self, codes: Int[Tensor, "n gh gw"]) -> None:
        """Raise ChiasmError on codes out of range or of another grid."""
        check_codes(codes, self.grid, self.codebook_size, "a tokenizer")

    def check_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> None:
        """Raise ChiasmError on pictures that are not of the tokenizer's size."""
        if tuple(pixels.shape[1:]) != (3, self.size, self.size):
            raise ChiasmError(
                f"pictures of shape {tuple(pixels.shape[1:])} given to a tokenizer of {(3, self.size, self.size)}"
            )

    def health(self) -> dict[str, float]:
        """Live figures of the codebook for the progress line: share used, perplexity, codes revived."""
        return {}


class ContinuousTokenizer(ImageTokenizer):
    """Interface of a tokenizer of vectors: it encodes pixels as "n gh gw c", in single precision, and has no codes.

    width: numbers of each vector.
    scaling, shift: a vector is `(latent - shift) * scaling` of what its network makes.
    """

    width: int
    scaling: float = 1.0
    shift: float = 0.0

    @property
    def space(self) -> Vectors:
        return Vectors(self.grid, self.width)

    def is_encoded(self, images: Tensor) -> bool:
        """Whether these are vectors as it makes them, not pixels."""
        return tuple(images.shape[1:]) == (*self.grid, self.width)

    @abstractmethod
    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]: ...

    @abstractmethod
    def decode(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]: ...

    @classmethod
    def example_neighbours(cls) -> dict[str, dict[str, Any]]:
        return {"heads": {"image": {"type": "raster", "alphabet": {"type": "regression"}}}}


class VideoTokenizer(ImageTokenizer):
    """Interface of an image tokenizer that also takes moving pictures.

    A video of t frames has u <= t grids of codes, each of `grid`.
    """

    @abstractmethod
    def time_grids(self, frames: int) -> int:
        """How many grids of codes a video of so many frames has; raises RecipeError for a length it cannot make."""

    @abstractmethod
    def encode_video(self, video: Float[Tensor, "n t 3 h w"]) -> Int[Tensor, "n u gh gw"]: ...

    @abstractmethod
    def video_losses(self, video: Float[Tensor, "n t 3 h w"]) -> dict[str, Loss]:
        """Training losses by name, as of pictures."""

    @abstractmethod
    def decode_video(self, codes: Int[Tensor, "n u gh gw"]) -> Float[Tensor, "n t 3 h w"]: ...

    def video_decoding_losses(
        self, codes: Int[Tensor, "n u gh gw"], video: Float[Tensor, "n t 3 h w"]
    ) -> dict[str, Loss]:
        """`decoding_losses` of videos."""
        raise RecipeError(f"image_tokenizer {self.name!r} has no decoder that learns alone")


def join_scales(codes: Sequence[Int[Tensor, "n h w"]]) -> Int[Tensor, "n 1 l"]:
    """The codes of several scales in one row."""
    return torch.cat([each.flatten(1) for each in codes], 1)[:, None]


def split_scales(
    codes: Int[Tensor, "n 1 l"], scales: Sequence[tuple[int, int]]
) -> list[Int[Tensor, "n h w"]]:
    """`join_scales` reversed."""
    parts = codes.flatten(1).split([rows * columns for rows, columns in scales], 1)
    return [part.unflatten(1, scale) for part, scale in zip(parts, scales, strict=True)]
