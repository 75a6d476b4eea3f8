"""Pixels from codes by the tokenizer that made the codes."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.decoders import ImageDecoder
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.tokenizers import ImageTokenizer


class TokenizerDecoder(ImageDecoder, name="tokenizer"):
    """The image tokenizer's own decoder (VQ-VAE, VQGAN and their kin); it has no weights of its own.

    A stage may train it alone, for better images of the same codes.
    """

    def __init__(self, image_tokenizer: ImageTokenizer):
        super().__init__()
        # In a tuple, so that the tokenizer's weights are registered, saved and counted once, in its own slot.
        self._tokenizer = (image_tokenizer,)
        self.size = image_tokenizer.size

    def decode(
        self, codes: Int[Tensor, "n gh gw"], *, generators: Generators | None = None
    ) -> Float[Tensor, "n 3 h w"]:
        """Images of codes; it draws nothing, so `generators` have no effect."""
        return self._tokenizer[0].decode(codes)

    def losses(self, codes: Int[Tensor, "n gh gw"], pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        return self._tokenizer[0].decoding_losses(codes, pixels)

    def learners(self) -> Mapping[str, nn.Module]:
        """The half of the tokenizer behind its codes, which stay what they are."""
        children = dict(self._tokenizer[0].named_children())
        return {name: children[name] for name in self._tokenizer[0].decoding if name in children}
