"""What the image head predicted, to pixels."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor, nn

from chiasm.errors import ChiasmError
from chiasm.nn.generators import Generators
from chiasm.nn.losses import Loss
from chiasm.parts import Part
from chiasm.tokenizers import ContinuousTokenizer, ImageTokenizer
from chiasm.tokenizers.spaces import Space

MOST_GUIDANCE = 100.0


class TextCodec(Protocol):
    """Text from ids; see `chiasm.language.text.TextTokenizer`."""

    def decode(self, ids: Sequence[int]) -> str: ...


class WordReader(Protocol):
    """The words of a language model; see `chiasm.language.Language`."""

    @property
    def tokenizer(self) -> TextCodec: ...

    @property
    def vocabulary_size(self) -> int: ...


@dataclass(frozen=True)
class DecoderContext:
    """What an image decoder is built with.

    space: of its targets; None = it stands alone, and takes whatever fits it.
    image_tokenizer: that makes the targets, if one does. Who keeps it does so outside of its modules, for its
        weights are not the decoder's.
    reader: of words, where a language model writes them.
    """

    space: Space | None
    image_tokenizer: ImageTokenizer | None = None
    reader: WordReader | None = None


class ImageDecoder(Part, nn.Module, slot="image_decoder"):
    """Interface. Built as `ImageDecoder(context, *, options)`.

    A target is what an image tokenizer makes or a head writes: codes, "n gh gw", or vectors, "n gh gw c".

    space: of its targets; of vectors, without a grid where any number of them will do.
    size: height and width in pixels of the images that it makes.
    guided: whether it is led away from a negative target.
    edits: whether it changes a source image.
    sheet: as of an image tokenizer (`chiasm.tokenizers.ImageTokenizer`).
    caption_words: how many words of the answer before an image its `caption_losses` read; 0 = it has none.
    reads_mixtures: whether it takes mixtures of words too, "n 1 k v", through which a gradient flows.
    """

    space: Space
    size: int
    guided: bool = False
    edits: bool = False
    sheet: int | None = None
    caption_words: int = 0

    @property
    def reads_mixtures(self) -> bool:
        return False

    @property
    def autoencoder(self) -> ContinuousTokenizer | None:
        """In whose vectors of images, which stay what they are, the losses work; None = in pixels."""
        return None

    @abstractmethod
    def decode(
        self,
        target: Tensor,
        *,
        generators: Generators | None = None,
        negative: Tensor | None = None,
        guidance: float | None = None,
        source: Float[Tensor, "n 3 h w"] | None = None,
    ) -> Float[Tensor, "n 3 h w"]:
        """Images of targets.

        generators: one an image, for decoders that draw something; None = from seed 0 on.
        negative: targets that guidance leads away from; None = the decoder's own.
        guidance: how far it leads; 1 = none, None = as far as the decoder's options say.
        source: images to change. Raises ChiasmError for what it cannot use, or lacks.
        """

    @abstractmethod
    def losses(
        self,
        target: Tensor,
        pixels: Float[Tensor, "n 3 h w"],
        *,
        source: Float[Tensor, "n 3 h w"] | None = None,
    ) -> dict[str, Loss]:
        """Training losses by name, of targets and the images of `size` that they shall become.

        pixels, source: or vectors that `autoencoder` has made of them ("n gh gw c"), which gives the same in
            training; without gradients the noise is a function of what is given, and so another.
        Where the targets have a graph, gradients reach what made them, whether or not the decoder learns.
        """

    def check_words(self, text: str, called: str) -> None:
        """Raises DataError for words that it would not read to their end. called: what they are."""

    def caption_losses(self, target: Tensor, words: Int[Tensor, "n k"]) -> dict[str, Loss]:
        """Losses by name of targets against the words before their images; -1 stands behind the last."""
        return {}

    def learners(self) -> Mapping[str, nn.Module]:
        """What a stage that trains it changes, by name; all else stays as it is."""
        return dict(self.named_children())

    def check_inputs(
        self,
        target: Tensor,
        *,
        pixels: Tensor | None = None,
        generators: Generators | None = None,
        negative: Tensor | None = None,
        guidance: float | None = None,
        source: Tensor | None = None,
    ) -> None:
        """Raise ChiasmError for inputs that the decoder has no use for, or lacks, and for too many or too few."""
        who = f"image_decoder {self.name!r}"
        counted: dict[str, Sized | None] = {
            "images": pixels,
            "source images": source,
            "generators": generators,
        }
        for name, each in counted.items():
            if each is not None and len(each) != len(target):
                raise ChiasmError(
                    f"{who}: there are {len(target)} targets, but {len(each)} {name}; there must be one for each"
                )
        for name, images in (("images", pixels), ("source images", source)):
            if images is None or (self.autoencoder is not None and self.autoencoder.is_encoded(images)):
                continue
            if images.ndim != 4 or images.shape[1] != 3:
                raise ChiasmError(
                    f"{who} takes {name} of three channels, (images, 3, height, width), not {tuple(images.shape)}"
                )
        if (negative is not None or guidance is not None) and not self.guided:
            raise ChiasmError(f"{who} is not guided: it takes no negative target and no guidance")
        is_number = isinstance(guidance, int | float) and not isinstance(guidance, bool)
        if guidance is not None and not (is_number and 0 <= guidance <= MOST_GUIDANCE):
            raise ChiasmError(f"guidance: it must be a number from 0 to {MOST_GUIDANCE:g}, not {guidance!r}")
        if source is not None and not self.edits:
            raise ChiasmError(f"{who} changes no image: it takes no source")
        if source is None and self.edits:
            raise ChiasmError(f"{who} changes an image, and needs that image as its source")
