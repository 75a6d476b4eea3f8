"""Every question of a conversation is asked, with the answers before it that the recipe says."""

from dataclasses import dataclass

import pytest

from chiasm.data.sample import Message, Sample
from chiasm.evaluation.conversations import Item, answer_items, questions_of
from chiasm.evaluation.subject import Subject, expected, question
from chiasm.evaluation.tasks import Exam
from chiasm.evaluation.tasks.text import Text
from chiasm.recipe import Evaluation


def talk(*turns, name="talk"):
    roles = {"u": "user", "a": "assistant", "s": "system", "q": "assistant"}
    return Sample(name, tuple(Message(roles[kind], (text,), learnt=kind != "q") for kind, text in turns))


THREE = talk(
    ("s", "Be brief."), ("u", "One?"), ("a", "1"), ("u", "Two?"), ("a", "2"), ("u", "Three?"), ("a", "3")
)


@dataclass
class Recorder(Subject):
    """Answers each question with its words in capitals, and keeps what stood before it."""

    sees = draws = False

    def __post_init__(self):
        self.before = {}

    def answer(self, samples, *, blind=False):
        for sample in samples:
            self.before[question(sample)] = [
                message.content[0] for message in sample.messages[:-1] if message.role == "assistant"
            ]
        return [question(sample).upper() for sample in samples]

    draw = reconstruct = None


Recorder.__abstractmethods__ = frozenset()


def test_every_answer_of_a_conversation_is_a_question():
    asked = questions_of(THREE)
    assert [question(sample) for sample in asked] == ["One?", "Two?", "Three?"]
    assert [expected(sample) for sample in asked] == ["1", "2", "3"]
    assert [sample.name for sample in asked] == [f"talk, answer {n}" for n in (1, 2, 3)]
    assert all(sample.messages[0].content == ("Be brief.",) for sample in asked)


def test_further_true_answers_are_to_the_last_question():
    sample = Sample("s", THREE.messages, {"task": "chat", "answers": ("three",)})
    assert [each.truth.get("answers") for each in questions_of(sample)] == [None, None, ("three",)]


def test_one_question_stays_the_sample_that_it_is():
    sample = talk(("u", "One?"), ("a", "1"))
    assert questions_of(sample) == [sample]
    document = Sample("d", (Message("document", ("text",)),))
    assert questions_of(document) == [document]


def test_an_answer_that_is_not_to_be_learnt_is_not_asked_for():
    asked = questions_of(talk(("u", "One?"), ("q", "an example"), ("u", "Two?"), ("a", "2")))
    assert [expected(sample) for sample in asked] == ["2"]


def items():
    other = talk(("u", "Four?"), ("a", "4"), ("u", "Five?"), ("a", "5"), name="other")
    return [
        Item(question, cluster, sample.name, turn)
        for cluster, sample in enumerate((THREE, other))
        for turn, question in enumerate(questions_of(sample))
    ]


def test_the_true_answers_stand_before_a_later_question():
    subject = Recorder()
    assert answer_items(subject, items(), "true") == ["ONE?", "TWO?", "THREE?", "FOUR?", "FIVE?"]
    assert subject.before["Three?"] == ["1", "2"]
    assert subject.before["Five?"] == ["4"]


def test_or_the_models_own():
    subject = Recorder()
    assert answer_items(subject, items(), "model") == ["ONE?", "TWO?", "THREE?", "FOUR?", "FIVE?"]
    assert subject.before == {
        "One?": [],
        "Two?": ["ONE?"],
        "Three?": ["ONE?", "TWO?"],
        "Four?": [],
        "Five?": ["FOUR?"],
    }


class Plain(list):
    """A source of conversations."""

    name, broken = "plain", "error"


@pytest.mark.parametrize(("earlier", "before"), [("true", ["1", "2"]), ("model", ["ONE?", "TWO?"])])
def test_tasks_ask_as_the_recipe_says(earlier, before):
    subject = Recorder()
    sizes = Evaluation(text=10, earlier_answers=earlier)
    outcome = Text().run(Exam(subject, Plain([[THREE]]), sizes))
    assert outcome.scores["n"] == 3
    assert outcome.scores["clusters"] == 1
    assert subject.before["Three?"] == before
