"""Pixels from codes by the tokenizer that made the codes."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from chiasm.decoders import DecoderContext, ImageDecoder
from chiasm.errors import RecipeError
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss


class TokenizerDecoder(ImageDecoder, name="tokenizer"):
    """The image tokenizer's own decoder (VQ-VAE, VQGAN and their kin); it has no weights of its own.

    A stage may train it alone, for better images of the same codes.
    """

    def __init__(self, context: DecoderContext):
        super().__init__()
        image_tokenizer = context.image_tokenizer
        if image_tokenizer is None:
            raise RecipeError("image_decoder 'tokenizer' is the image tokenizer's, but the model has none")
        if not image_tokenizer.decodes:
            raise RecipeError(
                f"image_tokenizer {image_tokenizer.name!r} makes no pixels, and so image_decoder 'tokenizer' none: "
                "use 'diffusion'"
            )
        # In a tuple, so that the tokenizer's weights are registered, saved and counted once, in its own slot.
        self._tokenizer = (image_tokenizer,)
        self.space, self.size, self.sheet = image_tokenizer.space, image_tokenizer.size, image_tokenizer.sheet

    def decode(
        self,
        target: Tensor,
        *,
        generators: Generators | None = None,
        negative: Tensor | None = None,
        guidance: float | None = None,
        source: Float[Tensor, "n 3 h w"] | None = None,
    ) -> Float[Tensor, "n 3 h w"]:
        """Images of codes or vectors; it draws nothing, so `generators` have no effect."""
        self.check_inputs(target, generators=generators, negative=negative, guidance=guidance, source=source)
        return self._tokenizer[0].decode(target)

    def losses(
        self,
        target: Tensor,
        pixels: Float[Tensor, "n 3 h w"],
        *,
        source: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]:
        self.check_inputs(target, pixels=pixels, source=source)
        return self._tokenizer[0].decoding_losses(target, pixels)

    def learners(self) -> Mapping[str, nn.Module]:
        """The half of the tokenizer behind its codes, which stay what they are."""
        modules = dict(self._tokenizer[0].named_modules())
        return {name: modules[name] for name in self._tokenizer[0].decoding if name in modules}
