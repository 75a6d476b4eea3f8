"""Pixels from codes by the tokenizer that made the codes."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from chiasm.decoders import ImageDecoder
from chiasm.generators import Generators
from chiasm.tokenizers import ImageTokenizer


class TokenizerDecoder(ImageDecoder, name="tokenizer"):
    """The image tokenizer's own decoder (VQ-VAE, VQGAN and their kin); it has no weights of its own."""

    def __init__(self, image_tokenizer: ImageTokenizer):
        super().__init__()
        # In a tuple, so that the tokenizer's weights are registered, saved and counted once, in its own slot.
        self._tokenizer = (image_tokenizer,)

    def decode(
        self, codes: Int[Tensor, "n gh gw"], *, generators: Generators | None = None
    ) -> Float[Tensor, "n 3 h w"]:
        """Pictures of codes; it draws nothing, so `generators` have no effect."""
        return self._tokenizer[0].decode(codes)
