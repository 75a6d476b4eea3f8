"""Questions about lists, answered by one who looks things up by what they are, and by one who counts places."""

import pytest

from chiasm.data.world.binding import Binding
from chiasm.evaluation.subject import Subject
from chiasm.evaluation.tasks import Exam, NotApplicable
from chiasm.evaluation.tasks.binding import BindingQuestions
from chiasm.recipe import Evaluation


class Reader(Subject):
    """Answers lists of up to `most` things by colour and shape, and no longer ones."""

    sees = draws = False
    most = 6

    def answer(self, samples, *, blind=False):
        return [self._answer(sample.messages[0].content[0].split()) for sample in samples]

    def _answer(self, words):
        *given, colour, shape = words
        things = {tuple(given[i : i + 2]): given[i + 2] for i in range(0, len(given), 3)}
        return things[colour, shape] if len(things) <= self.most else "nothing"

    def draw(self, samples, *, seed): ...

    def reconstruct(self, images): ...


class ByHeart(Reader):
    """Answers what stands where the thing stood when it first saw the question."""

    def __init__(self):
        self.slots = {}

    def _answer(self, words):
        *given, colour, shape = words
        keys = [tuple(given[i : i + 2]) for i in range(0, len(given), 3)]
        slot = self.slots.setdefault((frozenset(keys), colour, shape), keys.index((colour, shape)))
        return given[3 * slot + 2]


def scores(subject, **options):
    exam = Exam(subject, Binding(length=(2, 12), lists=300), Evaluation(text=300))
    return BindingQuestions(**options).run(exam).scores


def test_lists_are_scored_by_whether_training_had_any_as_long():
    found = scores(Reader())
    assert found["by_type"]["within"]["score"] == 1
    assert found["by_type"]["beyond"]["score"] == 0
    assert {length: each["score"] for length, each in found["by_length"].items()} == {
        str(length): float(length <= 6) for length in range(2, 13)
    }
    assert scores(Reader(), trained=4)["by_type"]["beyond"]["score"] == pytest.approx(2 / 8, abs=0.1)


def test_a_swap_tells_looking_up_from_counting():
    assert scores(Reader())["swap"]["within"] | {"n": 0} == {"symbol": 1, "position": 0, "n": 0}
    assert scores(ByHeart())["swap"]["within"] | {"n": 0} == {"symbol": 0, "position": 1, "n": 0}


def test_lists_as_images_are_not_asked():
    exam = Exam(Reader(), Binding(form="image", lists=5), Evaluation())
    with pytest.raises(NotApplicable, match="lists in words"):
        BindingQuestions().run(exam)
