"""Every question of a conversation, with the messages before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chiasm.data.sample import Sample
from chiasm.evaluation.subject import Subject
from chiasm.recipe import EarlierAnswers


@dataclass(frozen=True)
class Item:
    """A held-out question with the messages before it.

    sample: ends with the answer. cluster: its group in the source, whose samples share a picture.
    conversation: names the sample that it is a part of. turn: the index of its answer in the conversation, from 0.
    """

    sample: Sample
    cluster: int
    conversation: str = ""
    turn: int = 0


def questions_of(sample: Sample) -> list[Sample]:
    """The conversation up to each answer that is to be learnt; a sample without any stays as it is."""
    ends = [i for i, m in enumerate(sample.messages) if m.role == "assistant" and m.learnt]
    if not ends or ends == [len(sample.messages) - 1]:
        return [sample]
    # other right answers are those of the last question
    truth = {key: value for key, value in sample.truth.items() if key != "answers"}
    return [
        Sample(
            f"{sample.name}, answer {number}",
            sample.messages[: end + 1],
            sample.truth if end == ends[-1] else truth,
        )
        for number, end in enumerate(ends, 1)
    ]


def answer_items(
    subject: Subject,
    items: Sequence[Item],
    earlier: EarlierAnswers,
    *,
    blind: bool = False,
    change: Callable[[Sample], Sample] = lambda sample: sample,
) -> list[str]:
    """The subject's answer to each item.

    earlier: whether earlier answers of a conversation are the true ones or the subject's own.
    blind: without the images. change: replaces an item's sample, by one of as many messages.
    """
    samples = [change(item.sample) for item in items]
    if earlier == "true":
        return subject.answer(samples, blind=blind)
    answers = [""] * len(items)
    answers_by_conversation: dict[tuple[int, str], dict[int, str]] = {}  # by the index of the message
    for turn in sorted({item.turn for item in items}):
        indices = [i for i, item in enumerate(items) if item.turn == turn]
        earlier_answers = [
            answers_by_conversation.setdefault((items[i].cluster, items[i].conversation), {}) for i in indices
        ]
        conversations = [
            _with_answers(samples[i], answered) for i, answered in zip(indices, earlier_answers, strict=True)
        ]
        for i, answered, answer in zip(
            indices, earlier_answers, subject.answer(conversations, blind=blind), strict=True
        ):
            answers[i] = answer
            answered[len(samples[i].messages) - 1] = answer
    return answers


def _with_answers(sample: Sample, answers: dict[int, str]) -> Sample:
    messages = tuple(
        replace(message, content=(str(answers[i]),)) if i in answers else message
        for i, message in enumerate(sample.messages)
    )
    return replace(sample, messages=messages)
