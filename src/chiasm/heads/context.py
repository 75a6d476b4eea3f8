"""What a head is built with, and what it needs of the parts beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.nn.losses import Loss
from chiasm.tokenizers.spaces import Codes, Refinement, Space, Vectors, WordIds


class LanguageVocabulary(Protocol):
    """The ids of a language model, among which codes may stand; see `chiasm.language.Language`."""

    @property
    def vocabulary_size(self) -> int: ...

    def embed(self, ids: Int[Tensor, "*s"]) -> Float[Tensor, "*s d"]: ...

    def logits(self, hidden: Float[Tensor, "*s d"]) -> Float[Tensor, "*s v"]: ...

    def grow(self, count: int) -> int: ...


class ConditionedDecoder(Protocol):
    """An image decoder that learns from what a head writes; see `chiasm.decoders.ImageDecoder`."""

    name: ClassVar[str]

    caption_words: int

    @property
    def reads_mixtures(self) -> bool: ...

    def losses(
        self,
        target: Tensor,
        pixels: Float[Tensor, "n 3 h w"],
        *,
        source: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]: ...

    def caption_losses(self, target: Tensor, words: Tensor) -> dict[str, Loss]: ...

    def learners(self) -> Mapping[str, nn.Module]: ...


@dataclass(frozen=True)
class HeadContext:
    """What a head and its alphabet are built with.

    width: of the hidden states that it is handed.
    space: of what is written.
    vocabulary: of the language model. Who keeps it does so outside of its modules, for its weights are not the
        head's; likewise the refinement.
    refinement: what one scale of the space adds to the coarser ones; None = there are none.
    decoder: whose conditions are written, where it is those; likewise kept outside of modules.
    """

    width: int
    space: Space
    vocabulary: LanguageVocabulary
    refinement: Refinement | None = None
    decoder: ConditionedDecoder | None = None

    @property
    def codes(self) -> Codes:
        """The space, for what writes codes alone (see `Alphabet.spaces`)."""
        assert isinstance(self.space, Codes)
        return self.space

    @property
    def words(self) -> WordIds:
        """The space, for what writes words alone."""
        assert isinstance(self.space, WordIds)
        return self.space

    @property
    def vectors(self) -> Vectors:
        """The space, for what writes vectors alone."""
        assert isinstance(self.space, Vectors)
        return self.space
