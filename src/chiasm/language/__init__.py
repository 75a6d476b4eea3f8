"""Tokens to hidden states."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.parts import Part

if TYPE_CHECKING:
    from chiasm.attention import Layout
    from chiasm.language.text import TextTokenizer
    from chiasm.sequence import PackedBatch


class Language(Part, nn.Module, slot="language"):
    """Interface.

    width: of a hidden state.
    context: the most positions a document may have.
    tokenizer: text to ids and back.
    grid: rows and columns of a written picture's codes; the builder says them.
    whole_pictures: the tokens of a picture that is read see each other, else only those before them.
    says: it predicts words; else it only reads them, and texts have no loss.
    """

    whole_pictures: ClassVar[bool] = False
    says: ClassVar[bool] = True
    grid: tuple[int, int] = (1, 1)
    width: int
    context: int
    tokenizer: "TextTokenizer"

    @abstractmethod
    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]: ...

    def embed_batch(self, batch: "PackedBatch") -> Float[Tensor, "b t d"]:
        """What stands at the words of a batch, for languages in which that depends on the words around."""
        return self.embed(batch.ids)

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

    @property
    def vocabulary_size(self) -> int:
        """Ids that it embeds and predicts, those that no text has among them."""
        return len(self.head.weight)  # type: ignore[arg-type]

    def grow(self, count: int) -> int:
        """Add `count` ids that no text has, for an image head's codes; returns the first of them."""
        raise RecipeError(f"the vocabulary of language {self.name!r} cannot grow by image codes")

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty key-value cache."""

    def forget(self, cache: Any, count: int) -> None:
        """Take the last `count` positions out of the cache again."""
        cache.crop(-count)
