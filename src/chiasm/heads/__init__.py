"""How hidden states of the language model become an image: an order of positions, and what each of them says."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from chiasm.heads.context import ConditionedDecoder, HeadContext, LanguageVocabulary
from chiasm.heads.drawing import Ask, DrawingState, Retained, Writing, finish
from chiasm.heads.layout import Span, SpanLayout, raster
from chiasm.heads.sampling import GREEDY, OPTIONS, Sampling
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts import Part
from chiasm.tokenizers.spaces import Codes, Space

__all__ = [
    "GREEDY",
    "Alphabet",
    "AnyAlphabet",
    "Ask",
    "ConditionedDecoder",
    "DrawingState",
    "DrawnValues",
    "HeadContext",
    "LanguageVocabulary",
    "Order",
    "Retained",
    "Sampling",
    "Span",
    "SpanLayout",
    "WordLearner",
    "Writing",
    "finish",
    "raster",
]


class DrawnValues(NamedTuple):
    """Values drawn at some places.

    confidence: the chance that each had, after guidance alone; vectors have none.
    """

    values: Shaped[Tensor, "n ..."]
    confidence: Float[Tensor, "n ..."] | None = None


class AnyAlphabet(Part, nn.Module, slot="alphabet"):
    """What one position says, of either kind: values (`Alphabet`), or what the image decoder is conditioned on
    (`chiasm.heads.conditioning`). An order takes the kinds that the annotation of its option names.

    spaces: which it writes.
    conditions: it is of the second kind: the decoder's losses are learnt, and the targets are pixels of its size.
    reserved: ids of the language model's vocabulary that stand for codes, which text never holds.
    pairs: with guidance it writes pairs, "n 2 gh gw c": what follows the prompt, and what follows the empty one,
        between which the image decoder guides.
    sampled_by: the options of `Sampling` that what it draws depends on; the others do nothing.
    """

    spaces: ClassVar[tuple[type[Space], ...]] = (Codes,)
    sampled_by: ClassVar[frozenset[str]] = frozenset(OPTIONS)
    conditions: ClassVar[bool] = False
    reserved: Sequence[int] = ()
    pairs: bool = False


class Alphabet(AnyAlphabet):
    """Values that are predicted, and read once they are there. Interface, built as
    `Alphabet(context, symbols, *, options)`.

    A value is a code, a whole number, or a vector, which has one axis more (c, behind those written here).

    symbols: how many values can be read at a position: the codes, and behind them what an order adds, such as a
        mask; of vectors, which cannot be counted, 1; 0 = none is ever read.
    counted_as: the name of its loss.
    strays: how many values behind the symbols may be drawn, though they are no part of an image.
    """

    counted_as: str = "image"
    strays: int = 0

    @abstractmethod
    def embed(self, values: Shaped[Tensor, "*s"]) -> Float[Tensor, "*s d"]:
        """What stands at positions of these values."""

    @abstractmethod
    def loss(
        self,
        hidden: Float[Tensor, "m d"],
        values: Shaped[Tensor, " m"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> Float[Tensor, ""]:
        """The sum of the losses of values that hidden states shall predict, each with its weight."""

    @abstractmethod
    def draw(
        self,
        hidden: Float[Tensor, "r ... d"],
        sampling: Sampling,
        generators: Generators | None = None,
        *,
        never: int | None = None,
    ) -> DrawnValues:
        """Values at n rows of places: r = n, or 2 n with guidance, those that follow their prompt first.

        never: a code that is not drawn.
        """


class WordLearner(Protocol):
    """What learns from the words before images alone, without hidden states."""

    def word_losses(
        self,
        words: Int[Tensor, "n k"],
        pixels: Float[Tensor, "n 3 h w"],
        sources: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]:
        """Losses by name of images. sources: those that they come of by a change."""


class Order(Part, nn.Module, slot="order"):
    """Who is predicted when, seeing whom. Interface, built as `Order(context, *, alphabet, options)`.

    A target is what the image tokenizer encodes an image as: codes "n gh gw" or vectors "n gh gw c".

    spaces: which it writes.
    reads_codes: whether an image that is only looked at can stand in the sequence as its target, in models without
        an encoder.
    edits: whether it can keep values of an image and draw the others (see `DrawingState.retained`).
    unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    spaces: ClassVar[tuple[type[Space], ...]] = (Codes,)
    reads_codes: ClassVar[bool] = True
    edits: ClassVar[bool] = False
    space: Space
    alphabet: AnyAlphabet
    unconditional: float

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"alphabet": {"type": "own"}}

    @classmethod
    def can_hold(cls, held: type[Part]) -> bool:
        """Whether there is a space that both write."""
        return not issubclass(held, AnyAlphabet) or bool(set(cls.spaces) & set(held.spaces))

    @classmethod
    def symbols(cls, space: Space) -> int:
        """How many values its alphabet is asked to embed."""
        return space.size if isinstance(space, Codes) else 1

    @classmethod
    def inner(cls, spec: Mapping[str, Any], context: HeadContext) -> dict[str, tuple[Any, ...]]:
        """What the parts that it holds are built with, by option. spec: every option of it."""
        return {"alphabet": (context, cls.symbols(context.space))}

    @classmethod
    def sampled_with(cls, alphabet: type[AnyAlphabet]) -> frozenset[str]:
        """The options of `Sampling` that its images depend on, with such an alphabet."""
        return alphabet.sampled_by

    @property
    def reserved(self) -> Sequence[int]:
        """Ids of the language model's vocabulary that text never holds."""
        return self.alphabet.reserved

    @property
    def word_learner(self) -> WordLearner | None:
        """What the image decoder can learn by while the language model does not run; None = by nothing."""
        return None

    def standalone(self) -> dict[str, Any]:
        own = self.alphabet.standalone()
        return {"alphabet": {**self.alphabet.spec, **own}} if own else {}

    @abstractmethod
    def layout(self) -> SpanLayout: ...

    @abstractmethod
    def prepare(self, target: Shaped[Tensor, "n gh gw"]) -> Span:
        """What stands at the positions of images; raises ChiasmError on a target of another tokenizer."""

    def read_layout(self) -> SpanLayout:
        """How an image that is only looked at stands in the sequence; its `rows` mean nothing."""
        return self.layout()

    def embed_read(self, target: Shaped[Tensor, "n gh gw"]) -> Float[Tensor, "n k d"]:
        """What stands at the positions of images that are only looked at."""
        return self.prepare(target).embeddings

    @abstractmethod
    def losses(self, hidden: Float[Tensor, "n m d"], span: Span) -> dict[str, Loss]:
        """Losses by name, from the hidden states at `SpanLayout.rows`."""

    def terms(
        self, target: Shaped[Tensor, "n gh gw"], orphans: Bool[Tensor, " n"]
    ) -> dict[str, float] | None:
        """How many terms each loss of these images will have; None = as many for each, but for orphans."""
        return None

    @abstractmethod
    def write(
        self,
        start: Float[Tensor, "r d"],
        sampling: Sampling,
        generators: Generators | None = None,
        progress: DrawingState | None = None,
    ) -> Writing:
        """Draw n images, behind prompts that end with the begin marker; returns their targets.

        What an image decoder is conditioned on is, with guidance, a pair: "n 2 gh gw c", what follows the prompt
        and what follows the empty one.

        start: hidden states of the begin marker, one a row: r = n, or 2 n with guidance, first all that follow
            their prompt, then, in the same order, those that follow the empty prompt.
        generators: one an image, whose numbers no other image takes.
        progress: where what is drawn is noted, and what there is of it found, to go on from there; what it
            retains is not drawn.
        Raises ChiasmError when guidance is asked of a head that never saw an empty prompt.
        """
