"""Masks in words and as images, scored with those of a mask head: read back, or unreadable."""

import pytest

from chiasm import parts
from chiasm.data.mask_answers import ANSWER
from chiasm.evaluation.subject import Subject, pictures_read
from chiasm.evaluation.tasks import Exam, NotApplicable
from chiasm.evaluation.tasks.masks import MaskTask
from chiasm.evaluation.tasks.questions import about_pictures
from chiasm.recipe import Evaluation


class Knowing(Subject):
    """Knows the right answer to each image; every third one in words is cut off."""

    sees = draws = True
    every = 0

    def __init__(self, world):
        answers = (sample for index in range(len(world)) for sample in world[index])
        self.answers = {pictures_read(each)[0].key: each.truth[ANSWER].content() for each in answers}

    def answer(self, samples, *, blind=False):
        texts = [self.answers[pictures_read(each)[0].key] for each in samples]
        return [
            text[:-2] + ";" if self.every and i % self.every == 0 else text for i, text in enumerate(texts)
        ]

    def draw(self, samples, *, seed):
        return [self.answers[pictures_read(each)[0].key].open() for each in samples]

    def reconstruct(self, images):
        return [picture.open() for picture in images]


def exam(form, **subject):
    options = {"emoji": 12, "grid": 2, "canvas": 64, "scenes": 30, "unanswerable": 0.2, "mask_form": form}
    world = parts.build("data", {"type": "world", "objects": [2, 3], **options, "tasks": {"segment": 1}})
    knowing = Knowing(world)
    for name, value in subject.items():
        setattr(knowing, name, value)
    return Exam(knowing, world, Evaluation(questions=30))


@pytest.mark.parametrize("form", ["polygons", "runs", "image"])
def test_who_knows_the_answers_reaches_what_the_form_allows(form):
    scores = MaskTask().run(exam(form)).scores
    assert scores["score"] == pytest.approx(scores["oracle"])
    assert scores["oracle"] == 1 if form == "image" else 0.7 < scores["oracle"] < 1
    assert scores["unreadable"] == 0
    assert scores["shuffled"] < 0.5
    assert scores["everything"] < 0.3


def test_what_cannot_be_read_scores_nothing_and_is_counted():
    outcome = MaskTask().run(exam("polygons", every=3))
    assert outcome.scores["unreadable"] == pytest.approx(1 / 3)
    assert [each["score"] for each in outcome.samples["asked"][::3]] == [0] * 10
    assert outcome.scores["score"] < outcome.scores["oracle"] * 0.75


def test_giou_stands_by_what_is_asked_for_too():
    scores = MaskTask().run(exam("polygons")).scores
    by_type = scores["by_type"]
    assert by_type["unanswerable"]["score"] == 1  # nothing is meant, and nothing marked
    assert by_type["segment"]["score"] < scores["score"]  # outlines on a coarse grid
    assert sum(each["n"] for each in by_type.values()) == scores["n"] == 30
    assert sum(each["score"] * each["n"] for each in by_type.values()) == pytest.approx(30 * scores["score"])


def test_masks_in_words_are_no_questions_of_the_other_tasks():
    world = exam("runs").source
    assert not any(about_pictures(sample) for index in range(5) for sample in world[index])


def test_a_model_without_the_head_that_a_form_needs_is_not_examined():
    with pytest.raises(NotApplicable, match="no image head"):
        MaskTask().run(exam("image", draws=False))
