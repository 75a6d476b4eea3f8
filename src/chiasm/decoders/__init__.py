"""What the image head predicted, to pixels."""

from abc import abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.parts import Part


class ImageDecoder(Part, nn.Module, slot="image_decoder"):
    """Interface. Built as `ImageDecoder(image_tokenizer, *, options)`."""

    @abstractmethod
    def decode(
        self, codes: Int[Tensor, "n gh gw"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n 3 h w"]: ...
