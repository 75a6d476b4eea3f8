"""What a data source yields: samples of messages, whose content is text and media, and masks asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from chiasm.views import Size


class Picture(ABC):
    """A picture that is opened when it is needed.

    key: hash of what determines the pixels, for the feature and code caches.
    """

    key: str
    size: Size

    @abstractmethod
    def open(self) -> Image.Image:
        """The picture as RGB; raises DataError naming the picture if that cannot be done."""


class Signal(ABC):
    """Something of a modality beside text and images, as a sound is, that is opened when it is needed.

    modality: its name in the recipe's `modalities`. key: hash of what determines its numbers.
    """

    modality: str
    key: str

    @cached_property
    def where(self) -> str:
        """What errors call it."""
        return f"{self.modality} {self.key}"

    @abstractmethod
    def open(self) -> Float[np.ndarray, ...]:
        """Its numbers; raises DataError naming the signal if that cannot be done."""


Media = Picture | Signal  # what stands in messages beside text


class Masks(ABC):
    """Masks of an image that are asked for; they are made when they are needed.

    count: how many there are.
    """

    count: int

    @abstractmethod
    def open(self) -> Bool[np.ndarray, "m h w"]:
        """Which pixels of the image each mask covers."""


Role = Literal["system", "user", "assistant", "document", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """What an assistant asks of a tool.

    arguments: values as JSON has them. id: by which the tool's answer names it.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One turn. Pictures and signals of an assistant are written by the model, all others are read.

    What an assistant says is learnt; of a `document` (plain text, no chat) all text is learnt. A document of
    pictures alone is a visual sentence, of which all is learnt and written.

    learnt: False = an answer in words that is read like a question, and not learnt.
    special_tokens: the names of special tokens in its text are special tokens, not letters.
    calls: of tools, behind what an assistant says.
    call: which call the answer of a `tool` belongs to.
    """

    role: Role
    content: tuple[str | Media, ...]
    learnt: bool = True
    special_tokens: bool = False
    calls: tuple[ToolCall, ...] = ()
    call: ToolCall | None = None

    @property
    def is_blank(self) -> bool:
        """Whether its content is white space at most."""
        return not any(isinstance(item, Media) or item.strip() for item in self.content)


@dataclass(frozen=True)
class Sample:
    """One document for training or one question for evaluation.

    name: says where the sample comes from, for errors ("sample 1042 of products.jsonl").
    masks: what a mask head shall write, of the last image that is read: the document ends with them.
    truth: what a metric needs to judge an answer (question type, scene, ...).
    tools: that may be called, each a declaration as chat templates take it: a JSON schema of its arguments.
    """

    name: str
    messages: tuple[Message, ...]
    truth: dict[str, Any] = field(default_factory=dict)
    masks: Masks | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
