"""How hidden states of the language model become an image: an order of positions, and what each of them says."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from chiasm.heads.drawing import Ask, DrawingState, Retained, Writing, finish
from chiasm.heads.sampling import GREEDY, OPTIONS, Sampling
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts import Part
from chiasm.tokenizers.spaces import Codes, Refinement, Space, Vectors, WordIds

__all__ = [
    "GREEDY",
    "Alphabet",
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
    "Writing",
    "finish",
    "raster",
]


@dataclass(frozen=True)
class SpanLayout:
    """How a written image stands in the sequence, known before a pixel is read.

    opens, exposed: the attention rule at each of its positions (see `chiasm.sequence`).
    rows: offsets, from the image's first position, of the hidden states that predict it; -1 is the position
        just before it (the marker that begins an image).
    coordinates: of each position, how many stand before it in the image, its row and its column (see `raster`).
    bare: the empty prompt of guidance holds nothing but that marker, not even what begins a document.
    words: how many words of the answer before an image are read for it, the last ones; 0 = none are.
    """

    opens: tuple[bool, ...]
    exposed: tuple[bool, ...]
    rows: tuple[int, ...]
    coordinates: tuple[tuple[int, int, int], ...]
    bare: bool = False
    words: int = 0

    @property
    def follows_words(self) -> bool:
        """Whether it is drawn after those words alone: then the hidden states that predict them are its own."""
        return self.words > 0 and not self.rows

    @property
    def length(self) -> int:
        return len(self.opens)


def raster(rows: int, columns: int) -> tuple[tuple[int, int, int], ...]:
    """Coordinates of a grid's cells, row by row."""
    return tuple((i, *divmod(i, columns)) for i in range(rows * columns))


class Span(NamedTuple):
    """What stands at the positions of written images, and what their hidden states shall predict.

    targets: what the hidden states at `SpanLayout.rows` predict, first axis: image.
    orphans: images with nothing before them in their document, whose row -1 is no hidden state of theirs: what
        it would predict is not learnt.
    drawn: what the order has drawn at random, for its losses.
    words: ids of the words before each image (`SpanLayout.words`), and behind them the end of its space.
    sources: pixels of the images that these come of by a change, for the decoder's loss.
    """

    embeddings: Float[Tensor, "n k d"]
    targets: Tensor
    orphans: Bool[Tensor, " n"] | None = None
    drawn: Any = None
    words: Int[Tensor, "n k"] | None = None
    sources: Float[Tensor, "n 3 h w"] | None = None


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


class DrawnValues(NamedTuple):
    """Values drawn at some places.

    confidence: the chance that each had, after guidance alone; vectors have none.
    """

    values: Shaped[Tensor, "n ..."]
    confidence: Float[Tensor, "n ..."] | None = None


class Alphabet(Part, nn.Module, slot="alphabet"):
    """What one position says. Interface, built as `Alphabet(context, symbols, *, options)`.

    A value is a code, a whole number, or a vector, which has one axis more (c, behind those written here).

    symbols: how many values can be read at a position: the codes, and behind them what an order adds, such as a
        mask; of vectors, which cannot be counted, 1; 0 = none is ever read.
    spaces: which it writes.
    conditions: its vectors are what the image decoder is conditioned on, whose losses are learnt: the targets are
        pixels of the decoder's size.
    reads_states: its losses read hidden states; else they follow from the words before an image.
    reserved: ids of the language model's vocabulary that stand for codes, which text never holds.
    pairs: with guidance it writes pairs, "n 2 gh gw c": what follows the prompt, and what follows the empty one,
        between which the image decoder guides.
    counted_as: the name of its loss.
    strays: how many values behind the symbols may be drawn, though they are no part of an image.
    sampled_by: the options of `Sampling` that what it draws depends on; the others do nothing.
    """

    spaces: ClassVar[tuple[type[Space], ...]] = (Codes,)
    sampled_by: ClassVar[frozenset[str]] = frozenset(OPTIONS)
    conditions: ClassVar[bool] = False
    reads_states: ClassVar[bool] = True
    reserved: Sequence[int] = ()
    pairs: bool = False
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

    def image_losses(
        self,
        hidden: Float[Tensor, "n gh gw d"],
        targets: Shaped[Tensor, "n gh gw"],
        sources: Float[Tensor, "n 3 h w"] | None = None,
        words: Int[Tensor, "n k"] | None = None,
    ) -> dict[str, Loss]:
        """Losses by name of images whose values are all predicted at once, one term a value.

        sources, words: of alphabets that write conditions, the images that these come of by a change, and the
            words before them.
        """
        count = hidden.shape[:3].numel()
        total = self.loss(hidden.flatten(0, 2), targets.flatten(0, 2))
        return {self.counted_as: Loss(total, total.new_tensor(float(count)))}

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


class Order(Part, nn.Module, slot="order"):
    """Who is predicted when, seeing whom. Interface, built as `Order(context, *, alphabet, options)`.

    A target is what the image tokenizer encodes an image as: codes "n gh gw" or vectors "n gh gw c".

    spaces: which it writes.
    reads_codes: whether an image that is only looked at can stand in the sequence as its target, in models without
        an encoder.
    conditions: whether it can write what an image decoder is conditioned on, which is never read.
    edits: whether it can keep values of an image and draw the others (see `DrawingState.retained`).
    unconditional: share of training images that follow an empty prompt, for guidance (0 = never).
    """

    spaces: ClassVar[tuple[type[Space], ...]] = (Codes,)
    reads_codes: ClassVar[bool] = True
    conditions: ClassVar[bool] = False
    edits: ClassVar[bool] = False
    space: Space
    alphabet: Alphabet
    unconditional: float

    @classmethod
    def example(cls) -> dict[str, Any]:
        return {"alphabet": {"type": "own"}}

    @classmethod
    def symbols(cls, space: Space) -> int:
        """How many values its alphabet is asked to embed."""
        return space.size if isinstance(space, Codes) else 1

    @classmethod
    def inner(cls, spec: Mapping[str, Any], context: HeadContext) -> dict[str, tuple[Any, ...]]:
        """What the parts that it holds are built with, by option. spec: every option of it."""
        return {"alphabet": (context, cls.symbols(context.space))}

    @classmethod
    def sampled_with(cls, alphabet: type[Alphabet]) -> frozenset[str]:
        """The options of `Sampling` that its images depend on, with such an alphabet."""
        return alphabet.sampled_by

    @property
    def reserved(self) -> Sequence[int]:
        """Ids of the language model's vocabulary that text never holds."""
        return self.alphabet.reserved

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
