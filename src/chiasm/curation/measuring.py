"""How much of the data that a model makes is right, where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chiasm.curation.making import DraftAnswer, Making, Material
from chiasm.curation.speakers import Speaker
from chiasm.data import Picture, Source
from chiasm.errors import ChiasmError
from chiasm.evaluation.statistics import Estimate, clustered
from chiasm.evaluation.subject import expected


@dataclass(frozen=True)
class Precision:
    """Of answers up to a filter. right: the share of those with a known truth. recall: of all right answers."""

    filter: str
    answers: int
    unknown: int
    right: Estimate
    recall: Estimate


@dataclass(frozen=True)
class Measured:
    """rows: before the filters and behind each in turn. drafts: all of them."""

    rows: tuple[Precision, ...]
    drafts: tuple[DraftAnswer, ...] = field(repr=False)


def measure(
    speaker: Speaker, source: Source, making: Making, *, images: int, own_questions: bool
) -> Measured:
    """Make data from a source's images, and compare the answers with its truths.

    images: groups of the source that are used. own_questions: the model asks; a question counts where the source
    knows its answer. Else the source's questions are asked. Raises ChiasmError where there is no question with an
    image and an answer.
    """
    materials = list(materials_of(source, images, own_questions))
    if not materials:
        raise ChiasmError(
            "the data has no question about an image with an answer in words: nothing to measure"
        )
    drafts = tuple(making.drafts(speaker, materials))
    stages = [("no filter", [draft for draft in drafts if draft.answer])]
    for name in making.filters:
        stages.append((name, [draft for draft in stages[-1][1] if draft.checks.get(name)]))
    return Measured(tuple(_precision(name, passed, drafts) for name, passed in stages), drafts)


def materials_of(source: Source, images: int, own_questions: bool) -> Iterator[Material]:
    """The images of a source about which it asks questions in words, with the answers."""
    for index in range(min(images, len(source))):
        truths: dict[str, tuple[str, ...]] = {}
        pictures: dict[str, Picture] = {}
        for sample in source[index]:
            if len(sample.messages) != 2 or sample.masks is not None:
                continue
            question, answer = (message.content for message in sample.messages)
            if len(question) == 2 and isinstance(question[0], Picture) and isinstance(answer[0], str):
                pictures[question[0].key] = question[0]
                truths[str(question[1])] = (expected(sample),)
        if len(pictures) == 1:
            picture = next(iter(pictures.values()))
            questions = () if own_questions else tuple(truths)
            yield Material(f"group {index}", picture, questions=questions, truths=truths)


def _precision(name: str, passed: Sequence[DraftAnswer], drafts: Sequence[DraftAnswer]) -> Precision:
    judged = [draft for draft in passed if draft.right is not None]
    right = [draft for draft in drafts if draft.right]
    among = {id(draft) for draft in passed}
    return Precision(
        name,
        len(passed),
        len(passed) - len(judged),
        clustered([float(bool(each.right)) for each in judged], [each.material.name for each in judged]),
        clustered([float(id(each) in among) for each in right], [each.material.name for each in right]),
    )
