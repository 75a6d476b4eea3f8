"""Pixels from codes by the tokenizer that made the codes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm.decoders import ImageDecoder
from chiasm.tokenizers import ImageTokenizer


class TokenizerDecoder(ImageDecoder, name="tokenizer"):
    """The image tokenizer's own decoder (VQ-VAE, VQGAN and their kin); it has no weights of its own."""

    def __init__(self, image_tokenizer: ImageTokenizer):
        super().__init__()
        # In a tuple, so that the tokenizer's weights are registered, saved and counted once, in its own slot.
        self._tokenizer = (image_tokenizer,)

    def decode(
        self, codes: Int[Tensor, "n gh gw"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n 3 h w"]:
        """Pictures of codes; it draws nothing, so `generator` has no effect."""
        return self._tokenizer[0].decode(codes)
