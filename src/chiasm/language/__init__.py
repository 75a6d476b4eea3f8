"""Tokens to hidden states."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.parts import Part

if TYPE_CHECKING:
    from chiasm.attention import Layout
    from chiasm.language.text import TextTokenizer


class Language(Part, nn.Module, slot="language"):
    """Interface.

    width: of a hidden state.
    context: the most positions a document may have.
    tokenizer: text to ids and back.
    whole_pictures: the tokens of a picture that is read see each other, else only those before them.
    """

    whole_pictures: ClassVar[bool] = False
    width: int
    context: int
    tokenizer: "TextTokenizer"

    @abstractmethod
    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]: ...

    @abstractmethod
    def forward(
        self,
        embeddings: Float[Tensor, "b t d"],
        positions: Int[Tensor, "b t"],
        layout: "Layout",
        cache: Any | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Hidden states after the last norm. `cache` (from `new_cache`) is extended in place."""

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """The layer over the vocabulary."""

    @abstractmethod
    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]: ...

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty key-value cache."""
