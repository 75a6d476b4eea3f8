"""What is measured. A task is one file here, or one that is loaded with `--plugin`; there is no list to extend."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from chiasm import parts
from chiasm.data import Source
from chiasm.data.sample import Sample
from chiasm.errors import DataError, RecipeError
from chiasm.evaluation import metrics
from chiasm.evaluation.asking import QuestionRecord, ask
from chiasm.evaluation.conversations import Item, answer_items, questions_of
from chiasm.evaluation.subject import Subject
from chiasm.parts import Part
from chiasm.parts.registry import place
from chiasm.recipe import Evaluation

# In a source that has none of what a task wants in so many groups, no further are looked at.
PATIENCE = 1000


class NotApplicable(Exception):
    """A task that cannot be run on this model or this data; the message says why, for the report."""


@dataclass(frozen=True)
class Control:
    """How questions are asked. blind: without the pictures. change: what is asked in a sample's place."""

    blind: bool = False
    change: Callable[[Sample], Sample] = lambda sample: sample


SEEING, BLIND = Control(), Control(blind=True)


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

    def required(self, what: str, matches: Callable[[Sample], bool], n: int) -> list[Item]:
        """As `collect`, but raises NotApplicable where there is none, which says in how many groups it looked."""
        items = self.collect(matches, n)
        if items:
            return items
        if n == 0:
            raise NotApplicable(f"of {what}, none were asked for")
        groups = len(self.source)
        extent = f"in its {groups:,} groups"
        if groups > PATIENCE:
            extent = f"in {PATIENCE:,} of its {groups:,} groups, drawn at random, and the others were not looked at"
        raise NotApplicable(f"the held-out data has no {what} {extent}")

    def collect(self, matches: Callable[[Sample], bool], n: int) -> list[Item]:
        """The first n wanted questions of the source, all of a conversation, in an order drawn by the seed.

        None, where the first `PATIENCE` groups have none.
        """
        items: list[Item] = []
        order = np.random.default_rng(self.seed).permutation(len(self.source))
        for looked, index in enumerate(order):
            if len(items) >= n or (looked >= PATIENCE and not items):
                break
            items += [
                Item(question, int(index), sample.name, turn)
                for sample in self.source[int(index)]
                for turn, question in enumerate(questions_of(sample))
                if matches(question) and self.usable(self.source, sample.name, question)
            ]
        return items[:n]

    def usable(self, source: Source, record: str, question: Sample) -> bool:
        """Whether a question of a record can be asked; of a source that skips none, its error is raised later."""
        if source.broken == "skip":
            try:
                self.subject.check(question)
            except DataError as error:
                self.unusable[record] = error.kind
                return False
        return True

    def ask(self, items: Sequence[Item], conditions: Mapping[str, Control]) -> list[QuestionRecord]:
        """The questions with the subject's answers under each condition, scored by the recipe's metric."""
        questions = ask(items, metrics.lookup(self.sizes.metric))
        for name, condition in conditions.items():
            answers = answer_items(
                self.subject,
                items,
                self.sizes.earlier_answers,
                blind=condition.blind,
                change=condition.change,
            )
            for each, answer in zip(questions, answers, strict=True):
                each.answers[name] = answer
        return questions


@dataclass
class Outcome:
    """scores: goes into eval.json. samples: goes into samples.json. pictures: by file name, for the report."""

    scores: dict[str, Any]
    samples: dict[str, Any]
    pictures: dict[str, Image.Image] = field(default_factory=dict)


class Task(Part, ABC, slot="task"):
    """Interface; the docstring says what is measured. Built as `Task(*, options)`.

    name: the key in eval.json, and that of its options in a recipe (`evaluation: {tasks: {length: {most: 20}}}`).
    on_request: it runs only where it is named, in a recipe's `evaluation.tasks` or by `--only`.
    """

    on_request: ClassVar[bool] = False

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any):
        name = cls.__dict__.get("name") if name is None else name
        if name is None and not inspect.isabstract(cls):
            raise RecipeError(
                f"an evaluation task has no name: {place(cls)}; give it one, as in class Length(Task, "
                'name="length"), or make it abstract if it is no task by itself'
            )
        super().__init_subclass__(name=name, **kwargs)

    @abstractmethod
    def run(self, exam: Exam) -> Outcome:
        """Measure; raises NotApplicable."""


def tasks(options: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Task]:
    """Every task by name, the user's own last. options: of tasks, by their names. Raises RecipeError."""
    options = options or {}
    for name in options:
        parts.lookup("task", name)
    own = {
        name: not parts.lookup("task", name).__module__.startswith(__name__) for name in parts.names("task")
    }
    return {
        name: _built(name, options.get(name, {})) for name in sorted(own, key=lambda name: (own[name], name))
    }


def check(evaluation: Evaluation) -> None:
    """Raise RecipeError for a metric or a task's option that is not there, before anything is trained or asked."""
    metrics.lookup(evaluation.metric)
    for name, options in evaluation.tasks.items():
        parts.lookup("task", name)
        parts.check("task", {**options, "type": name}, f"evaluation.tasks.{name}")


def _built(name: str, options: Mapping[str, Any]) -> Task:
    task: Task = parts.build("task", {**options, "type": name}, where=f"evaluation.tasks.{name}")
    return task
