"""Image tokenizers: pixels to codes and back."""

from abc import abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.losses import Loss
from chiasm.parts import Part


class ImageTokenizer(Part, nn.Module, slot="image_tokenizer"):
    """Interface of a discrete tokenizer with one grid of codes.

    size: height and width in pixels of the pictures it encodes and decodes.
    codebook_size: number of different codes.
    """

    size: int
    codebook_size: int

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes of one picture."""

    @abstractmethod
    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n gh gw"]: ...

    @abstractmethod
    def decode(self, codes: Int[Tensor, "n gh gw"]) -> Float[Tensor, "n 3 h w"]: ...

    @abstractmethod
    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Training losses by name: reconstruction, commitment, entropy, ..."""

    def health(self) -> dict[str, float]:
        """Live figures of the codebook for the progress line: share used, perplexity, codes revived."""
        return {}
