"""Visual sentences of the world, and their exact evaluation."""

import pytest

from chiasm import parts
from chiasm.data.sample import Picture
from chiasm.evaluation.tasks import Exam, NotApplicable
from chiasm.evaluation.tasks.analogies import Analogies
from chiasm.recipe import Evaluation


class Copying:
    """Gives back the last picture that it is shown, or the true answer."""

    draws = True

    def __init__(self, right):
        self.right = right

    def draw(self, samples, *, seed):
        shown = [list(sample.messages[int(self.right)].content) for sample in samples]
        return [row[-1].open() for row in shown]

    def reconstruct(self, pictures):
        return [picture.open() for picture in pictures]


def world(**tasks):
    options = {"emoji": 8, "grid": 2, "objects": [1, 2], "scenes": 20, "drawn_canvas": 64, "tints": 1}
    return parts.build("data", {"type": "world", **options, "tasks": tasks})


def test_a_visual_sentence_holds_an_example_and_what_it_asks_for():
    (sample,) = world(sentence=1)[3]
    (message,) = sample.messages
    assert message.role == "document"
    assert len(message.content) == 4
    assert all(isinstance(item, Picture) for item in message.content)
    first, _, _, last = message.content
    assert sample.truth["kind"] in ("remove", "replace", "move")
    assert first.scene.things
    assert last.scene.things == sample.truth["scene"].calmed(1.0).things


def test_right_answers_are_found_right_and_copies_wrong():
    exam = Exam(Copying(right=True), world(sentence=1), Evaluation(pictures=12))
    scores = Analogies().run(exam).scores
    assert (scores["score"], scores["copying"], scores["n"]) == (1.0, 0.0, 12)
    copied = Analogies().run(Exam(Copying(right=False), world(sentence=1), Evaluation(pictures=12))).scores
    assert copied["score"] == 0.0
    assert copied["place"] == copied["copying_place"] > 0


def test_without_sentences_it_is_left_out():
    with pytest.raises(NotApplicable, match="no visual sentences"):
        Analogies().run(Exam(Copying(right=True), world(draw=1), Evaluation(pictures=4)))


def test_answers_are_told_by_the_kind_of_change_and_twelve_sentences_are_shown():
    exam = Exam(Copying(right=True), world(sentence=1), Evaluation(pictures=14))
    outcome = Analogies().run(exam)
    kinds = outcome.scores["by_kind"]
    assert sum(kind["n"] for kind in kinds.values()) == outcome.scores["n"] == 14
    assert {kind["score"] for kind in kinds.values()} == {1.0}
    shown = outcome.samples["sentences"]
    assert len(shown) == 12
    assert shown[3]["pictures"] == [f"sentence-3-{place}.webp" for place in range(4)]
    assert len(outcome.pictures) == 12 * 5
    assert {each["kind"] for each in shown} <= set(kinds)
