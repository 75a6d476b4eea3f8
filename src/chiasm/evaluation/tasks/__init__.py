"""What is measured. A task is one file here with one subclass of `Task`; there is no list to extend."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from chiasm.data import Source
from chiasm.data.sample import Sample
from chiasm.errors import DataError, RecipeError
from chiasm.evaluation import metrics
from chiasm.evaluation.asking import Asked, ask
from chiasm.evaluation.conversations import Item, answer_items, questions_of
from chiasm.evaluation.subject import Subject
from chiasm.recipe import Evaluation

# A source that has none of what a task wants in so many groups is taken to have none at all.
PATIENCE = 1000


class NotApplicable(Exception):
    """A task that cannot be run on this model or this data; the message says why, for the report."""


@dataclass(frozen=True)
class Condition:
    """How questions are asked. blind: without the pictures. change: what is asked in a sample's place."""

    blind: bool = False
    change: Callable[[Sample], Sample] = lambda sample: sample


SEEING, BLIND = Condition(), Condition(blind=True)


@dataclass(frozen=True)
class Exam:
    """Who is asked, from which held-out samples, and how many.

    labelled: pictures of one thing each, learnt from and held out, for what judges the encoder alone.
    unusable: what is wrong with records that were passed over (`broken: skip`), by name.
    """

    subject: Subject
    source: Source
    sizes: Evaluation
    seed: int = 0
    labelled: tuple[Source, Source] | None = None
    unusable: dict[str, str] = field(default_factory=dict)

    def collect(self, wanted: Callable[[Sample], bool], n: int) -> list[Item]:
        """The first n wanted questions of the source, all of a conversation, in an order drawn by the seed."""
        found: list[Item] = []
        order = np.random.default_rng(self.seed).permutation(len(self.source))
        for looked, index in enumerate(order):
            if len(found) >= n or (looked >= PATIENCE and not found):
                break
            found += [
                Item(question, int(index), sample.name, turn)
                for sample in self.source[int(index)]
                for turn, question in enumerate(questions_of(sample))
                if wanted(question) and self.usable(self.source, sample.name, question)
            ]
        return found[:n]

    def usable(self, source: Source, record: str, question: Sample) -> bool:
        """Whether a question of a record can be asked; of a source that skips none, its error is raised later."""
        if source.broken == "skip":
            try:
                self.subject.check(question)
            except DataError as error:
                self.unusable[record] = error.kind
                return False
        return True

    def ask(self, items: Sequence[Item], conditions: Mapping[str, Condition]) -> list[Asked]:
        """The questions with the subject's answers under each condition, scored by the recipe's metric."""
        asked = ask(items, metrics.lookup(self.sizes.metric))
        for name, condition in conditions.items():
            answers = answer_items(
                self.subject,
                items,
                self.sizes.earlier_answers,
                blind=condition.blind,
                change=condition.change,
            )
            for each, answer in zip(asked, answers, strict=True):
                each.said[name] = answer
        return asked


@dataclass
class Outcome:
    """scores: goes into eval.json. samples: goes into samples.json. pictures: by file name, for the report."""

    scores: dict[str, Any]
    samples: dict[str, Any]
    pictures: dict[str, Image.Image] = field(default_factory=dict)


class Task(ABC):
    """Interface; the docstring's first line says what is measured. name: the key in eval.json."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, exam: Exam) -> Outcome:
        """Measure; raises NotApplicable."""


def tasks() -> dict[str, Task]:
    """Every task by name."""
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        importlib.import_module(module.name)
    known: dict[str, Task] = {}
    for task in sorted(
        Task.__subclasses__(), key=lambda task: (not task.__module__.startswith(__name__), task.name)
    ):
        if task.name in known and type(known[task.name]).__qualname__ != task.__qualname__:
            raise RecipeError(f"two evaluation tasks are named {task.name!r}; rename {task.__qualname__}")
        known[task.name] = task()
    return known
