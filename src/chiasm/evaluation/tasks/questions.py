"""Questions about pictures, with the two controls that tell seeing from guessing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from chiasm.data.mask_answers import ANSWER
from chiasm.data.sample import Picture, Sample
from chiasm.evaluation.asking import QuestionRecord, scores_by_type
from chiasm.evaluation.subject import answers_in_words, pictures_read, with_pictures
from chiasm.evaluation.tasks import BLIND, SEEING, Control, Exam, Item, NotApplicable, Outcome, Task

OTHERS = ("caption", "maze")  # whole sentences, which matching does not judge; and what has a task of its own
RANDOM = 12  # questions shown in the report as they come
WRONG = 3  # wrong ones shown of each type beside those
WIDEST = 384  # pixels of a picture kept for the report


class Questions(Task, name="questions"):
    """Greedy answers; `blind`: without the picture, `shuffled`: with another question's picture."""

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.sees:
            raise NotApplicable("the model has no encoder")
        items = exam.required("questions about pictures", _matches, exam.sizes.questions)
        swap = swapped([item.sample for item in items], exam.seed)
        conditions = {"said": SEEING, "blind": BLIND}
        if swap:
            conditions["shuffled"] = Control(change=lambda sample: with_pictures(sample, swap))
        questions = exam.ask(items, conditions)
        images, random, wrong = _examples(questions, items, exam.seed)
        samples = {"asked": [each.record() for each in questions], "random": random, "wrong": wrong}
        controls = [name for name in conditions if name != "said"]
        return Outcome(scores_by_type(questions, controls), samples, images)


def swapped(samples: Sequence[Sample], seed: int) -> dict[str, Picture]:
    """For each picture's key another picture: a cycle through all of them in random order, so none stays itself.

    Empty where there is only one picture, which nothing can stand in for.
    """
    pictures = {picture.key: picture for sample in samples for picture in pictures_read(sample)}
    if len(pictures) < 2:
        return {}
    keys = list(pictures)
    order = np.random.default_rng(seed).permutation(len(keys))
    return {keys[i]: pictures[keys[j]] for i, j in zip(order, np.roll(order, 1), strict=True)}


def _matches(sample: Sample) -> bool:
    return about_pictures(sample) and sample.truth.get("phrasings") != "held_out"


def about_pictures(sample: Sample) -> bool:
    """Whether a sample shows pictures and wants a short answer in words, which is no mask."""
    other = sample.truth.get("task") in OTHERS or ANSWER in sample.truth
    return not other and bool(pictures_read(sample)) and answers_in_words(sample)


def _examples(
    questions: Sequence[QuestionRecord], items: Sequence[Item], seed: int
) -> tuple[dict[str, Image.Image], list[int], list[int]]:
    """Pictures to keep, questions drawn at random from all, and wrong ones of every type beside them."""
    order = np.random.default_rng(seed + 1).permutation(len(questions)).tolist()
    random = order[:RANDOM]
    wrong: list[int] = []
    for i in order[RANDOM:]:
        of_type = sum(questions[j].type == questions[i].type for j in wrong)
        if not questions[i].right and of_type < WRONG:
            wrong.append(i)
    images = {}
    for i in [*random, *wrong]:
        name = f"question-{items[i].cluster}.webp"
        questions[i].picture = name
        if name not in images:
            images[name] = shrunk(pictures_read(items[i].sample)[0].open())
    return images, random, sorted(wrong, key=lambda i: questions[i].type)


def shrunk(image: Image.Image) -> Image.Image:
    """A picture no larger than the report needs."""
    small = image.convert("RGB").copy()
    small.thumbnail((WIDEST, WIDEST))
    return small
