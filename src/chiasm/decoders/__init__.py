"""What the image head predicted, to pixels."""

from abc import abstractmethod
from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts import Part


class ImageDecoder(Part, nn.Module, slot="image_decoder"):
    """Interface. Built as `ImageDecoder(image_tokenizer, *, options)`.

    size: height and width in pixels of the images that it makes.
    """

    size: int

    @abstractmethod
    def decode(
        self, codes: Int[Tensor, "n gh gw"], *, generators: Generators | None = None
    ) -> Float[Tensor, "n 3 h w"]:
        """Images of codes. generators: one an image, for decoders that draw something; None = from seed 0 on."""

    @abstractmethod
    def losses(self, codes: Int[Tensor, "n gh gw"], pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Training losses by name, of codes and the images of `size` that they shall become."""

    def learners(self) -> Mapping[str, nn.Module]:
        """What a stage that trains it changes, by name; all else stays as it is."""
        return dict(self.named_children())
