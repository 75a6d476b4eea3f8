"""Mazes: where the ball comes to, said behind a thought or without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chiasm.conversation import Reply
from chiasm.data.sample import Message, Sample
from chiasm.data.world.maze_picture import ball_of
from chiasm.data.world.mazes import Maze
from chiasm.evaluation.asking import QuestionRecord, ask, scores_by_type
from chiasm.evaluation.conversations import Item
from chiasm.evaluation.metrics import lookup, normalise
from chiasm.evaluation.subject import ReplyingSubject, with_pictures
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task
from chiasm.evaluation.tasks.questions import swapped


class MazeQuestions(Task, name="maze"):
    """Greedy answers about mazes of the data source `maze`, whose last word is judged; by the steps of the way.

    blind, shuffled: without the picture, and with another maze's. thought: of models that write one between
    question and answer, the share that is right (`score`: the moves word by word, or a last image whose ball is at
    the end of the way), and the score of the answers behind those that are (`answers_behind_right`) and are not.
    tokens: of an answer with its thought, in the mean; an image counts as its positions.
    """

    on_request = True

    def run(self, exam: Exam) -> Outcome:
        subject = exam.subject
        if not subject.sees:
            raise NotApplicable("the model has no encoder")
        if not isinstance(subject, ReplyingSubject):
            raise NotApplicable("the subject answers in words alone, without a thought that may be an image")
        items = exam.required("mazes", _matches, exam.sizes.questions)
        samples = [item.sample for item in items]
        swap = swapped(samples, exam.seed)
        replies = {"said": subject.reply(samples), "blind": subject.reply(samples, blind=True)}
        if swap:
            replies["shuffled"] = subject.reply([with_pictures(sample, swap) for sample in samples])
        questions = ask([_short(item) for item in items], lookup(exam.sizes.metric))
        for condition, answered in replies.items():
            for question, reply in zip(questions, answered, strict=True):
                question.answers[condition] = _parts(reply)[1]
        scores = scores_by_type(questions, [name for name in replies if name != "said"])
        scores["tokens"] = sum(reply.tokens for reply in replies["said"]) / len(items)
        if any(sample.truth["thought"] for sample in samples):
            scores["thought"] = _thoughts(questions, samples, replies["said"])
        records = [
            {**question.record(), "thought": str(reply)}
            for question, reply in zip(questions, replies["said"], strict=True)
        ]
        return Outcome(scores, {"asked": records})


def _matches(sample: Sample) -> bool:
    return sample.truth.get("task") == "maze"


def _short(item: Item) -> Item:
    """The item with its answer alone, without the thought."""
    sample = item.sample
    answer = Message("assistant", (sample.truth["answer"],))
    return replace(item, sample=replace(sample, messages=(*sample.messages[:-1], answer)))


def _parts(reply: Reply) -> tuple[str, str]:
    """The words of the thought, and the answer."""
    *thought, answer = reply.text.split() or [""]
    return " ".join(thought), answer


def _thoughts(
    questions: Sequence[QuestionRecord], samples: Sequence[Sample], replies: Sequence[Reply]
) -> dict[str, Any]:
    right = [_is_right(sample, reply) for sample, reply in zip(samples, replies, strict=True)]
    result: dict[str, Any] = {"score": sum(right) / len(right), "n": len(right)}
    for name, wanted in (("answers_behind_right", True), ("answers_behind_wrong", False)):
        scores = [each.score("said") for each, own in zip(questions, right, strict=True) if own == wanted]
        if scores:
            result[name] = sum(scores) / len(scores)
    return result


def _is_right(sample: Sample, reply: Reply) -> bool:
    """Whether the thought says, or shows, where the ball goes."""
    maze: Maze = sample.truth["maze"]
    true = sample.truth["thought"]
    words = " ".join(item for item in true if isinstance(item, str))
    if [*map(normalise, _parts(reply)[0].split())] != [*map(normalise, words.split())]:
        return False
    if words:
        return True
    return len(reply.pictures) == len(true) and ball_of(reply.pictures[-1], maze.side) == maze.way[-1]
