"""What is measured. A task is one file here with one subclass of `Task`; there is no list to extend."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from chiasm.data import Source
from chiasm.data.sample import Sample
from chiasm.evaluation.subject import Subject
from chiasm.recipe import Evaluation

# A source that has none of what a task wants in so many groups is taken to have none at all.
PATIENCE = 1000


class NotApplicable(Exception):
    """A task that cannot be run on this model or this data; the message says why, for the report."""


@dataclass(frozen=True)
class Item:
    """A held-out sample. cluster: its group in the source, whose samples share a picture."""

    sample: Sample
    cluster: int


@dataclass(frozen=True)
class Exam:
    """Who is asked, from which held-out samples, and how many.

    labelled: pictures of one thing each, learnt from and held out, for what judges the encoder alone.
    """

    subject: Subject
    source: Source
    sizes: Evaluation
    seed: int = 0
    labelled: tuple[Source, Source] | None = None

    def collect(self, wanted: Callable[[Sample], bool], n: int) -> list[Item]:
        """The first n wanted samples of the source, in an order drawn by the seed."""
        found: list[Item] = []
        order = np.random.default_rng(self.seed).permutation(len(self.source))
        for looked, index in enumerate(order):
            if len(found) >= n or (looked >= PATIENCE and not found):
                break
            found += [Item(sample, int(index)) for sample in self.source[int(index)] if wanted(sample)]
        return found[:n]


@dataclass
class Outcome:
    """scores: goes into eval.json. samples: goes into samples.json. pictures: by file name, for the report."""

    scores: dict[str, Any]
    samples: dict[str, Any]
    pictures: dict[str, Image.Image] = field(default_factory=dict)


class Task(ABC):
    """Interface. name: the key in eval.json."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, exam: Exam) -> Outcome:
        """Measure; raises NotApplicable."""


def tasks() -> dict[str, Task]:
    """Every task by name."""
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        importlib.import_module(module.name)
    return {task.name: task() for task in sorted(Task.__subclasses__(), key=lambda task: task.__module__)}
