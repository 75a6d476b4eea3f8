"""Zoom: a second look at the part of an image that a question is about (DualFocus, arXiv 2402.14767).

Round any model: it is asked for the box of that part, sees it beside the whole image, and answers again. Of its two
answers the one with the lower perplexity stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Media, Message, Picture, Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.inference.answers import answers
from chiasm.inference.likelihood import answer_losses
from chiasm.inference.text import WordSampling
from chiasm.views import Size
from chiasm.views.focus import BOX_QUESTION, FOCUS_QUESTION, MARGIN, Box, Focus

if TYPE_CHECKING:
    from chiasm.model import Model

QUESTION = "{question}"  # where a template has the user's words
BOX_TOKENS = 64  # most tokens of an answer that is a box
ROWS = 32  # questions that are answered together
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_BOX = re.compile(r"[\s,;()\[\]{}<>]+".join([_NUMBER] * 4))


@dataclass(frozen=True)
class Zoom:
    """How a model is asked, by default in the words of DualFocus.

    box_question: asks where the answer is to be seen. focus_question: asks again, beside the enlarged part.
    scale: what the numbers of the model's boxes count to: 1 = fractions (DualFocus), 1000 (InternVL, MiniCPM-V),
        999 (DocOwl-1.5). margin: pixels of the image round the square that is cut out.
    """

    box_question: str = BOX_QUESTION
    focus_question: str = FOCUS_QUESTION
    scale: float = 1.0
    margin: int = MARGIN

    def __post_init__(self) -> None:
        for name in ("box_question", "focus_question"):
            if QUESTION not in getattr(self, name):
                raise ChiasmError(f"{name} is {getattr(self, name)!r}; it must hold {QUESTION}")
        if not 0 < self.scale < float("inf"):
            raise ChiasmError(f"scale is {self.scale}; it must be above 0")
        if self.margin < 0:
            raise ChiasmError(f"margin is {self.margin}; it must be 0 or more")


@dataclass(frozen=True)
class ZoomedAnswer:
    """An answer, and how it came about.

    answers: without and with the second look; the second is None where there was none. losses: of each, the mean
    cross-entropy per token; empty where there was no choice. focus: where the model looked. box_answer: how it
    said so. crop: what it saw. problem: why there was no second look.
    """

    answers: tuple[str, str | None]
    losses: tuple[float, ...] = ()
    focus: Focus | None = None
    box_answer: str = ""
    crop: Image.Image | None = None
    problem: str = ""

    @property
    def zoomed(self) -> bool:
        """Whether the answer is that of the second look."""
        first, second = self.answers
        if not first or not second:
            return bool(second)
        return bool(self.losses) and self.losses[1] < self.losses[0]

    @property
    def text(self) -> str:
        first, second = self.answers
        return second if self.zoomed and second is not None else first

    def __str__(self) -> str:
        return self.text


def zoom(
    model: Model,
    samples: Sequence[Sample],
    settings: Zoom | None = None,
    *,
    tokens: int,
    sampling: WordSampling | None = None,
    seed: int = 0,
) -> list[ZoomedAnswer]:
    """Answer samples that end with the user's question, looking twice at the last image that the user showed.

    tokens: most of an answer. sampling, seed: of its words; a box is always greedy. Raises DataError for a sample
    without an image, and for one that does not fit into the context with its second look.
    """
    settings = settings or Zoom()
    results: list[ZoomedAnswer] = []
    for start in range(0, len(samples), ROWS):
        rounds = [_Rounds(sample, settings) for sample in samples[start : start + ROWS]]
        asked = [each.sample for each in rounds]
        seeds = [seed] * len(asked)
        first = answers(model, asked, tokens=tokens, sampling=sampling, seeds=seeds)
        boxes = answers(model, [each.for_box() for each in rounds], tokens=BOX_TOKENS)
        for each, answer in zip(rounds, boxes, strict=True):
            each.look(answer)
        looking = [each for each in rounds if each.focus is not None]
        again = [each.for_answer() for each in looking]
        second = answers(model, again, tokens=tokens, sampling=sampling, seeds=[seed] * len(again))
        by_round = dict(zip(map(id, looking), second, strict=True))
        results += [
            _chosen(model, each, answer, by_round.get(id(each)))
            for each, answer in zip(rounds, first, strict=True)
        ]
    return results


def find_box(text: str, scale: float = 1.0) -> Box:
    """The first four numbers in a row, as fractions of the image's sides.

    Raises DataError where there are none, or they lie outside the image.
    """
    match = _BOX.search(text)
    if match is None:
        raise DataError(f"the answer {text!r} names no box: four numbers, left, top, right, bottom")
    return box_of([float(number) for number in match.groups()], scale, repr(text))


def box_of(edges: Sequence[float], scale: float, where: str) -> Box:
    """A box as fractions of the image's sides; raises DataError where it lies outside the image."""
    left, top, right, bottom = (edge / scale for edge in edges)
    if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
        raise DataError(
            f"the box in {where} is not within the image: its numbers rise from 0 to {scale:g}, "
            "left before right and top before bottom"
        )
    return left, top, right, bottom


def focused(picture: Picture, box: Box, margin: int) -> tuple[Focus, Image.Image]:
    """Where a second look at a box looks, and what it sees; raises DataError where that is nothing."""
    image = picture.open()
    focus = Focus.of(Size(image.height, image.width), box, margin)
    return focus, image.crop(focus.crop)


class _Rounds:
    """What one sample's question becomes, round by round."""

    def __init__(self, sample: Sample, settings: Zoom):
        self.sample, self.settings = sample, settings
        pictures = [
            item
            for message in sample.messages
            if message.role == "user"
            for item in message.content
            if isinstance(item, Picture)
        ]
        if not pictures or sample.messages[-1].role != "user":
            raise DataError(
                f"{sample.name} has no image to zoom into; show one to the model with the question"
            )
        self.picture = pictures[-1]
        last = sample.messages[-1].content
        self.shown = tuple(item for item in last if isinstance(item, Media))
        self.question = " ".join(item.strip() for item in last if isinstance(item, str))
        self.box_answer, self.problem = "", ""
        self.focus: Focus | None = None
        self.crop: Image.Image | None = None

    def for_box(self) -> Sample:
        question = self.settings.box_question.replace(QUESTION, self.question)
        return self._followed(Message("user", (*self.shown, question)))

    def look(self, answer: str) -> None:
        """Cut out what an answer names."""
        self.box_answer = str(answer)
        try:
            box = find_box(answer, self.settings.scale)
            self.focus, self.crop = focused(self.picture, box, self.settings.margin)
        except DataError as error:
            self.problem = str(error)

    def for_answer(self) -> Sample:
        """The question again, behind the box and beside the crop."""
        assert self.crop is not None
        crop = PictureInMemory(self.crop, f"the part of an image of {self.sample.name}")
        question = self.settings.focus_question.replace(QUESTION, self.question)
        box = Message("assistant", (self.box_answer,), learnt=False)
        return self._followed(*self.for_box().messages[-1:], box, Message("user", (crop, question)))

    def _followed(self, *messages: Message) -> Sample:
        history = tuple(
            replace(message, learnt=False) if message.role == "assistant" else message
            for message in self.sample.messages[:-1]
        )
        return replace(self.sample, messages=(*history, *messages))


def _chosen(model: Model, rounds: _Rounds, first: str, second: str | None) -> ZoomedAnswer:
    """Which answer is likelier behind both images: nothing to choose if one is empty, or both are equal."""
    losses: tuple[float, ...] = ()
    if first and second and first != second:
        prompt = rounds.for_answer()
        candidates = [
            replace(prompt, messages=(*prompt.messages, Message("assistant", (answer,))))
            for answer in (first, second)
        ]
        losses = tuple(answer_losses(model, candidates).tolist())
    return ZoomedAnswer(
        (first, second),
        losses,
        rounds.focus,
        rounds.box_answer,
        rounds.crop,
        rounds.problem,
    )
