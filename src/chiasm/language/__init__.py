"""Tokens to hidden states."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.errors import RecipeError
from chiasm.parts import Part
from chiasm.sequence.layout import ALL, attending

if TYPE_CHECKING:
    from chiasm.language.text import TextTokenizer
    from chiasm.sequence import PackedBatch
    from chiasm.sequence.layout import Layout


class Language(Part, nn.Module, slot="language"):
    """Interface.

    width: of a hidden state.
    context: the most positions a document may have.
    tokenizer: text to ids and back.
    whole_pictures: the tokens of a picture that is read see each other, else only those before them.
    encodes_prompt: what stands before an answer is one block, in which all see each other; an encoder reads it.
    says: it predicts words; else it only reads them, and texts have no loss.
    shares_prefixes: what it makes of a document's beginning does not depend on what stands behind, and a cache
        can be cut there, so that it serves all documents that begin alike.
    """

    whole_pictures: ClassVar[bool] = False
    encodes_prompt: ClassVar[bool] = False
    says: ClassVar[bool] = True
    shares_prefixes: bool = True
    width: int
    context: int
    tokenizer: "TextTokenizer"

    @abstractmethod
    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]: ...

    def embed_batch(self, batch: "PackedBatch") -> Float[Tensor, "b t d"]:
        """What stands at the words of a batch, for languages in which that depends on the words around."""
        return self.embed(batch.ids)

    def forward(
        self, embeddings: Float[Tensor, "b q d"], layout: "Layout", cache: Any | None = None
    ) -> Float[Tensor, "b q d"]:
        """Hidden states after the last norm.

        layout: of all positions so far; its queries are those of the embeddings.
        cache: from `new_cache`; it is extended in place.
        """
        with attending(layout):
            return self.read(embeddings, layout, cache)

    @abstractmethod
    def read(
        self, embeddings: Float[Tensor, "b q d"], layout: "Layout", cache: Any | None
    ) -> Float[Tensor, "b q d"]:
        """What `forward` gives, which finds the layout for modules that are handed none."""

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

    def expect(self, cache: Any, positions: int) -> None:
        """Say how many positions there will be in a cache, so that memory for them is laid out at once."""
        cache.expected = positions

    def forget(self, cache: Any, count: int) -> None:
        """Take the last `count` positions out of the cache again."""
        cache.crop(-count)

    def join(self, caches: Sequence[Any]) -> Any:
        """One cache of the rows of several, each of which has read something.

        Rows of shorter caches are padded in front, as `Layout.join` pads what they have read.
        """
        return caches[0].joined(caches[1:])

    def select(self, cache: Any, rows: Int[Tensor, " r"], *, columns: slice | Int[Tensor, " s"] = ALL) -> Any:
        """A cache of some rows, in this order and each as often as it is named; the given one stays as it is.

        columns: which of their positions, as of `Layout.select`.
        """
        return cache.selected(rows, columns)
