"""Instruction data from images: a model asks, answers, reasons and checks itself (TextSquare, arXiv 2404.12803)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

from chiasm.curation.speakers import Prompt, Speaker
from chiasm.data.sample import Picture
from chiasm.errors import ChiasmError
from chiasm.evaluation.metrics import exact, normalise
from chiasm.inference.answers import is_cut

TOGETHER = 16  # images whose prompts are answered together
FILTERS = ("self", "prompts", "contexts")
WHOLE = "whole"  # the check that an answer fails which a limit has cut off
_BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):、)]|[Qq]\d*[:.])\s*")
_YES = re.compile(r"\W*(yes|true|correct|right|(是|对|正确)的?)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Wordings:
    """What a model is asked, with {question}, {answer}, {count} and {text} in it.

    answers: ways to ask a question; the first is that of the answer, the others must get the same one. context:
    what stands before a question where the text of the image is given.
    """

    read: str = "Read all text in the image."
    ask: str = "Write {count} questions about what stands in the image, one a line, each with a short answer."
    answers: tuple[str, ...] = (
        "{question}",
        "{question} Answer with a single word or phrase.",
        "Look at the image again. {question}",
    )
    reason: str = (
        "{question} The answer is: {answer}. Explain in one or two sentences how the image shows it."
    )
    judge: str = (
        "Question: {question}\nAnswer: {answer}\n"
        "Does the image answer the question, and is the answer right? Say yes or no."
    )
    context: str = "The image says: {text}\n"

    def __post_init__(self) -> None:
        needed = {"ask": "count", "reason": "question", "judge": "answer", "context": "text"}
        for name, slot in needed.items():
            if f"{{{slot}}}" not in getattr(self, name):
                raise ChiasmError(f"the wording {name!r} is {getattr(self, name)!r}; it must hold {{{slot}}}")
        if len(self.answers) < 2 or not all("{question}" in each for each in self.answers):
            raise ChiasmError(
                "the wording 'answers' must be two ways to ask or more, each with {question} in it"
            )

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> Wordings:
        """Raises ChiasmError for a name or a value that is none."""
        names = {each.name for each in fields(cls)}
        for name, value in entries.items():
            if name not in names:
                raise ChiasmError(f"there is no wording {name!r}; there are {', '.join(sorted(names))}")
            several = name == "answers"
            listed = value if several and isinstance(value, (list, tuple)) else [] if several else [value]
            if not listed or not all(isinstance(text, str) for text in listed):
                raise ChiasmError(f"the wording {name!r} is {value!r}; it must be text ('answers': several)")
        texts: dict[str, Any] = dict(entries)
        if "answers" in texts:
            texts["answers"] = tuple(texts["answers"])
        return cls(**texts)


@dataclass(frozen=True)
class Material:
    """An image to make data from.

    reference: how a record names it. text: what stands in it, if that is known; else the model reads it. questions:
    asked in place of the model's own. truths: right answers by question, where they are known.
    """

    name: str
    picture: Picture
    reference: str = ""
    text: str | None = None
    questions: tuple[str, ...] = ()
    truths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class DraftAnswer:
    """A question and its answer on their way through the filters. checks: of each filter, whether it passed.

    An answer that a limit has cut off passes none, and has failed the check `WHOLE`.
    """

    material: Material
    question: str
    answer: str = ""
    reason: str = ""
    checks: dict[str, bool] = field(default_factory=dict)

    @property
    def retained(self) -> bool:
        return bool(self.answer) and all(self.checks.values())

    @property
    def right(self) -> bool | None:
        """None: nobody knows."""
        truths = {normalise(question): answers for question, answers in self.material.truths.items()}
        truth = truths.get(normalise(self.question))
        return None if truth is None else bool(exact(self.answer, truth))

    def record(self) -> dict[str, Any]:
        turns = [
            {"role": "user", "content": f"<image>{self.question}"},
            {"role": "assistant", "content": self.answer},
        ]
        if self.reason:
            turns += [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": self.reason}]
        return {"image": self.material.reference, "messages": turns, "metadata": {"checks": self.checks}}


@dataclass(frozen=True)
class Making:
    """How data is made.

    count: questions that the model asks of an image. temperature: of its asking. filters: self (the model says that
    question and answer hold), prompts (asked in other words it answers the same), contexts (with the text of the
    image before the question it answers the same). reasons: retained answers have reasons, as a second turn, but
    for one that is empty or cut off.
    """

    wordings: Wordings = Wordings()
    count: int = 4
    temperature: float = 0.7
    filters: tuple[str, ...] = FILTERS
    reasons: bool = True

    def __post_init__(self) -> None:
        for name in self.filters:
            if name not in FILTERS:
                raise ChiasmError(f"there is no filter {name!r}; there are {', '.join(FILTERS)}")
        if self.count < 1:
            raise ChiasmError(f"count is {self.count}; a model asks one question or more")

    def drafts(self, speaker: Speaker, materials: Iterable[Material]) -> Iterator[DraftAnswer]:
        """All questions of all images, in order, those that a filter stops too."""
        pending = iter(materials)
        while group := list(islice(pending, TOGETHER)):
            yield from self._of(speaker, group)

    def _of(self, speaker: Speaker, materials: Sequence[Material]) -> list[DraftAnswer]:
        drafts = self._asked(speaker, materials)
        for draft, answer in zip(drafts, self._answered(speaker, drafts, 0), strict=True):
            draft.answer = answer
            if is_cut(answer):
                draft.checks[WHOLE] = False
        for name in self.filters:
            # What one filter has stopped is not put before the next.
            going = [draft for draft in drafts if draft.retained]
            for draft, passed in zip(going, self._checked(name, speaker, going), strict=True):
                draft.checks[name] = passed
        if self.reasons:
            going = [draft for draft in drafts if draft.retained]
            prompts = [self._prompt(draft, self.wordings.reason) for draft in going]
            for draft, reason in zip(going, speaker.answer(prompts), strict=True):
                draft.reason = "" if is_cut(reason) else reason
        return drafts

    def _asked(self, speaker: Speaker, materials: Sequence[Material]) -> list[DraftAnswer]:
        own = [material for material in materials if not material.questions]
        ask = self.wordings.ask.replace("{count}", str(self.count))
        texts = speaker.answer([Prompt(each.picture, ask) for each in own], temperature=self.temperature)
        questions = {
            id(each): questions_in(text)[: self.count] for each, text in zip(own, texts, strict=True)
        }
        return [
            DraftAnswer(material, question)
            for material in materials
            for question in (material.questions or questions[id(material)])
        ]

    def _answered(self, speaker: Speaker, drafts: Sequence[DraftAnswer], way: int) -> list[str]:
        return speaker.answer([self._prompt(draft, self.wordings.answers[way]) for draft in drafts])

    def _checked(self, name: str, speaker: Speaker, drafts: Sequence[DraftAnswer]) -> list[bool]:
        if name == "self":
            prompts = [self._prompt(draft, self.wordings.judge) for draft in drafts]
            return [_YES.match(text) is not None for text in speaker.answer(prompts)]
        if name == "prompts":
            ways = [self._answered(speaker, drafts, way) for way in range(1, len(self.wordings.answers))]
        else:
            ways = [self._in_context(speaker, drafts)]
        return [all(exact(way[i], [draft.answer]) for way in ways) for i, draft in enumerate(drafts)]

    def _in_context(self, speaker: Speaker, drafts: Sequence[DraftAnswer]) -> list[str]:
        materials = {id(draft.material): draft.material for draft in drafts}
        texts = {key: material.text for key, material in materials.items()}
        unread = [key for key, text in texts.items() if text is None]
        read = speaker.answer([Prompt(materials[key].picture, self.wordings.read) for key in unread])
        texts |= dict(zip(unread, read, strict=True))
        return speaker.answer(
            [
                self._prompt(
                    draft,
                    self.wordings.context.replace("{text}", texts[id(draft.material)] or "")
                    + self.wordings.answers[0],
                )
                for draft in drafts
            ]
        )

    def _prompt(self, draft: DraftAnswer, wording: str) -> Prompt:
        text = wording.replace("{question}", draft.question).replace("{answer}", draft.answer)
        return Prompt(draft.material.picture, text)


def questions_in(text: str) -> list[str]:
    """The questions of a text that has one a line, each once, without numbers and bullets."""
    lines = (_BULLET.sub("", line).strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line.endswith(("?", "？"))))
