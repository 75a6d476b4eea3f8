"""Questions about pictures, with the two controls that tell seeing from guessing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from chiasm.data.documents import writes_picture
from chiasm.data.sample import Picture, Sample
from chiasm.evaluation.asking import Asked, ask, told
from chiasm.evaluation.subject import expected, pictures_read, with_pictures
from chiasm.evaluation.tasks import Exam, Item, NotApplicable, Outcome, Task

FREE = ("caption",)  # whole sentences, which matching does not judge
RANDOM = 12  # questions shown in the report as they come
WRONG = 3  # wrong ones shown of each type beside those
WIDEST = 384  # pixels of a picture kept for the report


class Questions(Task):
    """Exact match of greedy answers; `blind`: without the picture, `shuffled`: with another question's picture."""

    name = "questions"

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.sees:
            raise NotApplicable("the model has no encoder")
        items = exam.collect(_wanted, exam.sizes.questions)
        if not items:
            raise NotApplicable("the held-out data has no questions about pictures, or none were asked for")
        samples = [item.sample for item in items]
        swap = swapped(samples, exam.seed)
        asked = ask(items)
        conditions = {"said": samples, "shuffled": [with_pictures(sample, swap) for sample in samples]}
        for condition, shown in conditions.items():
            for each, said in zip(asked, exam.subject.answer(shown), strict=True):
                each.said[condition] = said
        for each, said in zip(asked, exam.subject.answer(samples, blind=True), strict=True):
            each.said["blind"] = said
        pictures, random, wrong = _shown(asked, items, exam.seed)
        shown_samples = {"asked": [each.record() for each in asked], "random": random, "wrong": wrong}
        return Outcome(told(asked, ("blind", "shuffled")), shown_samples, pictures)


def swapped(samples: Sequence[Sample], seed: int) -> dict[str, Picture]:
    """For each picture's key another picture: a cycle through all of them in random order, so none stays itself."""
    pictures = {picture.key: picture for sample in samples for picture in pictures_read(sample)}
    if len(pictures) < 2:
        raise NotApplicable("the questions share one picture, so that no other can be shown as a control")
    keys = list(pictures)
    order = np.random.default_rng(seed).permutation(len(keys))
    return {keys[i]: pictures[keys[j]] for i, j in zip(order, np.roll(order, 1), strict=True)}


def _wanted(sample: Sample) -> bool:
    return about_pictures(sample) and sample.truth.get("phrasings") != "held_out"


def about_pictures(sample: Sample) -> bool:
    """Whether a sample shows pictures and wants a short answer in words."""
    if sample.truth.get("task") in FREE or writes_picture(sample):
        return False
    return bool(pictures_read(sample)) and bool(expected(sample))


def _shown(
    asked: Sequence[Asked], items: Sequence[Item], seed: int
) -> tuple[dict[str, Image.Image], list[int], list[int]]:
    """Pictures to keep, questions drawn at random from all, and wrong ones of every type beside them."""
    order = np.random.default_rng(seed + 1).permutation(len(asked)).tolist()
    random = order[:RANDOM]
    wrong: list[int] = []
    for i in order[RANDOM:]:
        of_type = sum(asked[j].type == asked[i].type for j in wrong)
        if not asked[i].right and of_type < WRONG:
            wrong.append(i)
    pictures = {}
    for i in [*random, *wrong]:
        name = f"question-{items[i].cluster}.webp"
        asked[i].picture = name
        if name not in pictures:
            pictures[name] = kept(pictures_read(items[i].sample)[0].open())
    return pictures, random, sorted(wrong, key=lambda i: asked[i].type)


def kept(picture: Image.Image) -> Image.Image:
    """A picture no larger than the report needs."""
    small = picture.convert("RGB").copy()
    small.thumbnail((WIDEST, WIDEST))
    return small
