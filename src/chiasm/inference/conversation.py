"""An answer to a conversation, in words and images, in one row that is read once."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from chiasm.data.documents import without_prompt
from chiasm.data.files import PictureInMemory
from chiasm.heads import DrawingState
from chiasm.inference.captions import captions_target
from chiasm.inference.drawing import drawn_images, sources_of, without_negative, write
from chiasm.inference.preview import Previews, Unfinished, watched
from chiasm.inference.reading import CODES, CodedImage, CodeReader, same, suffix
from chiasm.inference.requests import Extend, Forget, Keep, Offer, Read, Request, Steps, Wish
from chiasm.inference.text import WordSampling, choose_words, words_of
from chiasm.nn.generators import SEEDS, Generators
from chiasm.sequence import Document, Kind

if TYPE_CHECKING:
    from chiasm.model import Model
    from chiasm.recipe import SamplingOptions

BROKEN = "\N{REPLACEMENT CHARACTER}"  # how a tokenizer writes the first bytes of a letter

States = Float[Tensor, "1 d"]


class Conversation(Request):
    """The answer to a document that ends where the assistant is to speak.

    Its pieces are texts and images, and before an image those that are not whole yet. The document grows by what is
    said and drawn, and the cache with it: an image that is drawn within stays there, and only what its head has not
    read yet is read behind it.

    seed: of the words, and of the first image; each further image has the next.
    images: whether it may draw. previews: how many images that are not whole yet it gives of each.
    cut: a limit (of tokens, or the context) came before its end.
    """

    def __init__(
        self,
        model: Model,
        document: Document,
        options: SamplingOptions,
        seed: int,
        *,
        images: bool = True,
        previews: int = 0,
    ):
        super().__init__()
        self.images, self.previews, self.cut = images, previews, False
        self.model, self.document, self.options = model, document, options
        self.words: WordSampling = options.of_words
        self.ended = False
        self._tokenizer = model.language.tokenizer
        self._reader = CodeReader(model)
        self.seed = self._image_seed = seed
        self._progress = DrawingState(Generators([seed]))
        self._remaining = options.answer_tokens
        self._ids: list[int] = []  # of the words since the last image
        self._caption: list[int] = []  # the words before the image that is drawn
        self._drawn = 0  # how many images it holds
        self._given = 0  # how many letters of them have been given out
        self._draws = False

    @property
    def rows(self) -> int:
        return 2 if self._guided and self.images and self.model.draws else 1

    @property
    def _guided(self) -> bool:
        """Whether images need a row without the prompt."""
        return self.options.guidance != 1 and not self.model.follows_words

    @property
    def positions(self) -> int:
        span = self.model.contract.span
        image = 0 if span is None else span.length
        return min(self.model.language.context, len(self.document) + self._remaining + image)

    @property
    def tokens(self) -> int:
        """Of the answer so far; an image counts as its positions, and the token that begins it as one of those."""
        span = self.model.contract.span
        more = 0 if span is None else self._drawn * (span.length - 1)
        return self.options.answer_tokens - self._remaining + more

    def steps(self) -> Steps:
        states = yield Read([self.document])
        while not self.ended:
            states = yield from (self._draw(states) if self._draws else self._speak(states))
        yield Offer(self.document)

    def _speak(self, states: States) -> Generator[Wish, Any, States]:
        """One more token."""
        id = self._choose(states) if self._goes_on() else None
        if id is None or id in self._tokenizer.ends:
            self.ended, self.cut = True, id is None
            self._give_text()
            return states
        self._draws = id == self._tokenizer.draw
        if not self._draws:
            self._ids.append(id)
        self.document.add_text([id], learn=False)
        self._remaining -= 1
        self._give_text()
        if not self.ended and self._goes_on():
            ids = torch.tensor([[id]], device=states.device)
            return (yield Extend.words(self.model.language.embed(ids)))[:, -1]
        self.ended |= self._draws
        return states

    def _goes_on(self) -> bool:
        """Whether there may be more tokens."""
        return self._remaining > 0 and len(self.document) < self.model.language.context

    def _choose(self, states: States) -> int:
        logits = self.model.text_logits(states, images=self.images)
        seen = [words_of(self.document, self._tokenizer)] if self.words.penalises else []
        place = self.options.answer_tokens - self._remaining
        return choose_words(logits, self.words, [self.seed], place, seen)[0]

    def _give_text(self) -> None:
        """Give out the text that is certain by now."""
        text, ended = self.words.text(self._tokenizer, self._ids)
        self.ended |= ended
        if not (self._draws or self.ended):
            text = text.rstrip(BROKEN)
            most = self.words.held_back(self._tokenizer)
            if most:  # the beginning of what ends it may stand there already
                text = text[: max(self._given, len(text) + 1 - most)]
        piece, self._given = text[self._given :], len(text)
        if self._draws:
            self._caption, self._ids, self._given = self._ids, [], 0
        if piece:
            self.pieces.append(piece)

    def _draw(self, states: States) -> Generator[Wish, Any, States]:
        """The image that the document's last marker begins; its positions are appended to the document."""
        guided = self._guided
        if guided:
            empty = yield Read([without_prompt(self.model.contract, self.document)])
            states = torch.cat([states, empty])
        generators, retained = self._progress.restored(), list[Tensor]()
        if self.model.follows_words:
            self._progress.values = captions_target(self.model, [self._caption])
        sampling = self.options.of_images
        previews = Previews(self.model, self._progress, generators, self.previews)
        writing = write(self.model, states, sampling, generators, self._progress, retained)
        drawn = yield from watched(writing, lambda: self._show(previews))
        if guided:
            yield Keep([0])
        sources = sources_of(self.model, [self.document])
        image = drawn_images(self.model, drawn.target, generators, sampling.guidance, sources)[0]
        own = without_negative(self.model, drawn.target, sampling.guidance)
        image.info[CODES] = own[0]
        begin = len(self.document)
        self._append(CodedImage(PictureInMemory(image), own[0]))
        self.pieces.append(image)
        if not self._goes_on():
            yield Forget(
                sum(each.shape[1] for each in retained)
            )  # what is read is the document's, to the letter
            return drawn.last
        return (yield from self._read_rest(begin, retained, drawn.last))

    def _show(self, previews: Previews) -> None:
        if (image := previews.take()) is not None:
            self.pieces.append(Unfinished(image))

    def _append(self, image: CodedImage) -> None:
        span = self.model.contract.span
        assert span is not None
        columns = span.opens, span.exposed, span.coordinates
        self.document.add_picture(image, Kind.WRITTEN, self._tokenizer.end, *columns)
        self.document.add_text(self._tokenizer.behind_picture, learn=False)
        self._drawn += 1
        self._image_seed = (self._image_seed + 1) % SEEDS
        self._progress, self._draws = DrawingState(Generators([self._image_seed])), False

    def _read_rest(
        self, begin: int, retained: list[Float[Tensor, "1 s d"]], last: States
    ) -> Generator[Wish, Any, States]:
        """Read what stands in the document from `begin` on, as far as it is not in the cache."""
        rest = suffix(self.model, self._reader, self.document, begin)
        cached = sum(each.shape[1] for each in retained)
        if cached and not same(torch.cat(retained, 1), rest.embeddings[:, :cached]):
            yield Forget(cached)  # an image may lose words that its head has drawn
            cached = 0
        rest = rest.behind(cached)
        return (yield rest)[:, -1] if rest.kinds else last
