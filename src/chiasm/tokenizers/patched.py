"""Squares of another tokenizer's vectors as one."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.nn.losses import Loss
from chiasm.parts.bounds import Multiplier
from chiasm.tokenizers import ContinuousTokenizer, ImageTokenizer
from chiasm.tokenizers.spaces import Vectors


class Patched(ContinuousTokenizer, name="patched"):
    """Space to depth over another image tokenizer's vectors, as NextStep-1 (arXiv 2508.10711) has it for a VAE's.

    Args:
        tokenizer: of vectors, whose squares become one vector each.
        patch: side of a square.
        normalised: each of the tokenizer's vectors is encoded with mean 0 and deviation 1; it is decoded so too.
    """

    def __init__(self, *, tokenizer: ImageTokenizer, patch: Multiplier = 2, normalised: bool = False):
        super().__init__()
        if not isinstance(tokenizer.space, Vectors):
            raise RecipeError(
                f"image_tokenizer 'patched' joins vectors, but {tokenizer.name!r} makes codes; use one of vectors"
            )
        rows, columns = tokenizer.grid
        if rows % patch or columns % patch:
            raise RecipeError(
                f"image_tokenizer 'patched': {rows} x {columns} vectors cannot be cut into squares of {patch}"
            )
        self.tokenizer, self.patch, self.normalised = tokenizer, patch, normalised
        self.size, self.width = tokenizer.size, tokenizer.space.width * patch**2

    @property
    def grid(self) -> tuple[int, int]:
        rows, columns = self.tokenizer.grid
        return rows // self.patch, columns // self.patch

    def encode(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n gh gw c"]:
        vectors = self.tokenizer.encode(pixels)
        if self.normalised:
            vectors = functional.layer_norm(vectors, vectors.shape[-1:])
        return rearrange(vectors, "n (gh p) (gw q) c -> n gh gw (p q c)", p=self.patch, q=self.patch)

    def decode(self, vectors: Float[Tensor, "n gh gw c"]) -> Float[Tensor, "n 3 h w"]:
        squares = rearrange(vectors, "n gh gw (p q c) -> n (gh p) (gw q) c", p=self.patch, q=self.patch)
        return self.tokenizer.decode(squares)

    def losses(self, pixels: Float[Tensor, "n 3 h w"]) -> dict[str, Loss]:
        """Those of the tokenizer."""
        return self.tokenizer.losses(pixels)

    def standalone(self) -> dict[str, Any]:
        own = self.tokenizer.standalone()
        return {"tokenizer": {**self.tokenizer.spec, **own}} if own else {}

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"tokenizer": {"type": "pixels", "size": 32, "patch_size": 4}}
