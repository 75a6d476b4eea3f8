"""What the image head predicted, to pixels."""

from abc import abstractmethod

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.generators import Generators
from chiasm.parts import Part


class ImageDecoder(Part, nn.Module, slot="image_decoder"):
    """Interface. Built as `ImageDecoder(image_tokenizer, *, options)`."""

    @abstractmethod
    def decode(
        self, codes: Int[Tensor, "n gh gw"], *, generators: Generators | None = None
    ) -> Float[Tensor, "n 3 h w"]:
        """Pictures of codes. generators: one a picture, for decoders that draw something; None = from seed 0 on."""
