"""Subjects of an evaluation: they answer questions and draw images, in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image

from chiasm.conversation import Reply
from chiasm.data.documents import document, draw_prompt, prompt_of
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Media, Picture, Sample
from chiasm.distribution.devices import fitting
from chiasm.inference.answers import Answers
from chiasm.inference.conversation import Conversation
from chiasm.inference.drawing import decode, draw_images, to_images
from chiasm.inference.engine import Engine
from chiasm.inference.masks import segment_all
from chiasm.inference.zoom import Zoom, ZoomedAnswer, zoom
from chiasm.model import Model
from chiasm.nn.generators import SEEDS
from chiasm.recipe import SamplingOptions
from chiasm.sequence import Document

POSITIONS = 16_384  # positions of one batch of questions
ROWS = 128  # most questions of a batch
SPARE_TOKENS = 8  # least tokens that an answer may have beyond the longest true one
IMAGES_AT_ONCE = 64  # most pictures encoded and decoded at a time


class Subject(ABC):
    """Interface of whatever can be examined: a model of Chiasm, or another system with the same abilities."""

    sees: bool
    draws: bool
    marks: bool = False

    def mark(self, samples: Sequence[Sample]) -> list[Bool[np.ndarray, "h w"]]:
        """What each sample asks for, marked in its last image; of subjects that mark (`marks`)."""
        raise NotImplementedError

    def check(self, sample: Sample) -> None:
        """Raise DataError where a sample cannot be examined, as with an image that cannot be decoded."""
        for picture in (item for m in sample.messages for item in m.content if isinstance(item, Picture)):
            picture.open()

    @abstractmethod
    def answer(self, samples: Sequence[Sample], *, blind: bool = False) -> list[str]:
        """The answer to each sample's last question; `blind`: without the images."""

    @abstractmethod
    def draw(self, samples: Sequence[Sample], *, seed: int) -> list[Image.Image]:
        """An image for the prompt of each sample; the first has the seed, each further one the next."""

    @abstractmethod
    def reconstruct(self, images: Sequence[Picture]) -> list[Image.Image]:
        """The images after the image tokenizer's encoding and decoding."""

    def targets(self, images: Sequence[Picture]) -> list[Image.Image]:
        """The images as a perfect image tokenizer would reconstruct them: at its size."""
        return [picture.open() for picture in images]


class ReplyingSubject(Subject):
    """Interface of a subject whose answers may be of words and images, one after another."""

    @abstractmethod
    def reply(self, samples: Sequence[Sample], *, blind: bool = False) -> list[Reply]:
        """The answer to each sample's last question in words and images; `blind`: without the images it shows."""


class ModelSubject(ReplyingSubject):
    """A model with its recipe's sampling settings. Answers are greedy.

    answer_tokens: most tokens of an answer; default: the longest true one of a call, and some more.
    """

    def __init__(self, model: Model, sampling: SamplingOptions, answer_tokens: int | None = None):
        self.model = model.eval()
        self.sampling = sampling
        self.answer_tokens = answer_tokens
        self.sees, self.draws = model.sees, model.draws
        self.marks = model.mask_head is not None

    def check(self, sample: Sample) -> None:
        super().check(sample)
        last = sample.messages[-1]
        if last.role == "assistant" and not any(isinstance(item, Picture) for item in last.content):
            document(self.model.contract, prompt_of(sample), prompt=True, blind=not self.sees)
        elif last.role == "assistant" and self.draws:
            document(self.model.contract, sample)

    def answer(self, samples: Sequence[Sample], *, blind: bool = False) -> list[str]:
        contract = self.model.contract
        prompts = [document(contract, prompt_of(sample), prompt=True, blind=blind) for sample in samples]
        tokens = self._most_tokens(samples)
        engine = Engine(self.model, rows=ROWS, positions=POSITIONS)
        batches = list(_batches(prompts))
        handles = [
            engine.submit(Answers(self.model, [prompts[i] for i in batch], tokens=tokens))
            for batch in batches
        ]
        answers = [""] * len(samples)
        for batch, handle in zip(batches, handles, strict=True):
            for i, text in zip(batch, handle.result(), strict=True):
                answers[i] = text
        return answers

    def reply(self, samples: Sequence[Sample], *, blind: bool = False) -> list[Reply]:
        tokens = self.answer_tokens or max(map(self._tokens_of_reply, samples), default=0) + SPARE_TOKENS
        options = self.sampling.model_copy(update={"word_temperature": 0.0, "answer_tokens": tokens})
        engine = Engine(self.model, rows=ROWS, positions=POSITIONS)
        requests = [
            Conversation(
                self.model,
                document(self.model.contract, prompt_of(sample), prompt=True, blind=blind),
                options,
                i,
            )
            for i, sample in enumerate(samples)
        ]
        handles = [engine.submit(request) for request in requests]
        replies = []
        for request, handle in zip(requests, handles, strict=True):
            handle.result()
            reply = Reply(cut=request.cut, tokens=request.tokens)
            for piece in request.pieces:
                reply.add(piece)
            replies.append(reply)
        return replies

    def zoom(self, samples: Sequence[Sample], settings: Zoom) -> list[ZoomedAnswer]:
        """The answer to each sample's last question in two looks at its image."""
        prompts = [prompt_of(sample) for sample in samples]
        return zoom(self.model, prompts, settings, tokens=self._most_tokens(samples))

    def mark(self, samples: Sequence[Sample]) -> list[Bool[np.ndarray, "h w"]]:
        return [each.marked for each in segment_all(self.model, samples)]

    def draw(self, samples: Sequence[Sample], *, seed: int) -> list[Image.Image]:
        contract = self.model.contract
        prompts = [draw_prompt(contract, prompt_of(sample)) for sample in samples]
        seeds = [(seed + i) % SEEDS for i in range(len(prompts))]
        return draw_images(self.model, prompts, seeds, self.sampling.of_images)

    @torch.inference_mode()
    def reconstruct(self, originals: Sequence[Picture]) -> list[Image.Image]:
        if self.model.image_tokenizer is None:  # nothing of an image is encoded, so nothing is lost
            return self.targets(originals)
        reader = PictureReader(self.model.contract)
        images: list[Image.Image] = []
        for start in range(0, len(originals), IMAGES_AT_ONCE):
            pixels = torch.stack(
                [reader.target(image) for image in originals[start : start + IMAGES_AT_ONCE]]
            )
            pixels = fitting(pixels.to(self.model.device), self.model.image_tokenizer)
            codes = self.model.image_tokenizer.encode(pixels)
            images += to_images(decode(self.model, codes))
        return images

    def targets(self, images: Sequence[Picture]) -> list[Image.Image]:
        reader = PictureReader(self.model.contract)
        return [to_images(reader.target(image)[None])[0] for image in images]

    def _tokens_of_reply(self, sample: Sample) -> int:
        """Of the true answer in words and images, of which each counts as the token that begins it."""
        images = sum(isinstance(item, Picture) for item in sample.messages[-1].content)
        return images + len(self.model.language.tokenizer.encode(expected(sample)))

    def _most_tokens(self, samples: Sequence[Sample]) -> int:
        """Most tokens of an answer: the longest true one's and half as many again, at least `SPARE_TOKENS` more."""
        if self.answer_tokens is not None:
            return self.answer_tokens
        tokenizer = self.model.language.tokenizer
        truths = (truth for s in samples for truth in (expected(s), *s.truth.get("answers", ())))
        longest = max((len(tokenizer.encode(tokenizer.lead + truth)) for truth in truths), default=0)
        return longest + max(SPARE_TOKENS, longest // 2)


def expected(sample: Sample) -> str:
    """The answer in words that ends a sample; empty if it ends otherwise."""
    last = sample.messages[-1]
    return "".join(c for c in last.content if isinstance(c, str)) if last.role == "assistant" else ""


def answers_in_words(sample: Sample) -> bool:
    """Whether a sample ends with an answer in words alone."""
    has_media = any(isinstance(item, Media) for item in sample.messages[-1].content)
    return bool(expected(sample).strip()) and not has_media


def question(sample: Sample) -> str:
    """The words of a sample's last question."""
    message = prompt_of(sample).messages[-1]
    return " ".join(item.strip() for item in message.content if isinstance(item, str))


def written_image(sample: Sample) -> Picture:
    """The first image of the answer that ends a sample."""
    return next(item for item in sample.messages[-1].content if isinstance(item, Picture))


def prompt_and_words(sample: Sample, image: Image.Image) -> str:
    """The words of a sample's last question, and those of the model's own after which it has drawn an image."""
    words = image.info.get("caption")
    return question(sample) if words is None else f"{question(sample)} → {words}"


def pictures_read(sample: Sample) -> list[Picture]:
    """The images of a sample that the model reads."""
    return [c for m in sample.messages if m.role != "assistant" for c in m.content if isinstance(c, Picture)]


def with_pictures(sample: Sample, other: dict[str, Picture]) -> Sample:
    """The sample with each picture that is read replaced by the one named by its key."""
    messages = tuple(
        m
        if m.role == "assistant"
        else replace(m, content=tuple(other[c.key] if isinstance(c, Picture) else c for c in m.content))
        for m in sample.messages
    )
    return replace(sample, messages=messages)


def _batches(documents: Sequence[Document]) -> Iterator[list[int]]:
    """Indices of documents of like length; those that read the same image are together, so it is encoded once."""

    def order(i: int) -> tuple[int, str, int]:
        length = len(documents[i])
        slots = documents[i].slots
        return (sum(s.length for s in slots), slots[0].picture.key, length) if slots else (0, "", length)

    batch: list[int] = []
    longest = 0
    for i in sorted(range(len(documents)), key=order):
        longest = max(longest, len(documents[i]))
        if batch and (len(batch) == ROWS or longest * (len(batch) + 1) > POSITIONS):
            yield batch
            batch, longest = [], len(documents[i])
        batch.append(i)
    if batch:
        yield batch
