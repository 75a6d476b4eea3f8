"""Several questions about one picture in a document."""

from chiasm.data import Picture
from chiasm.data.world import World
from chiasm.data.world.questions import QUESTIONS

TASKS = {"what": 1, "where": 2, "count": 1, "exist": 2, "choice": 1, "draw": 1}


def test_conversations_ask_each_question_once_in_random_order():
    alone, together = World(tasks=TASKS), World(tasks=TASKS, turns=3)
    orders = set()
    for index in range(20):
        single = [sample for sample in alone[index] if sample.truth["task"] in QUESTIONS]
        asked = [truth for sample in together[index][:-1] for truth in sample.truth["questions"]]
        assert sorted(t["question"] for t in asked) == sorted(s.truth["question"] for s in single)
        orders.add(tuple(truth["task"] for truth in asked))
    assert len(orders) > 10


def test_a_conversation_shows_its_picture_once_and_answers_turn_by_turn():
    world = World(tasks=TASKS, turns=3)
    for sample in world[5][:-1]:
        items = [item for message in sample.messages for item in message.content]
        assert [isinstance(item, Picture) for item in items] == [True] + [False] * (len(items) - 1)
        assert [message.role for message in sample.messages] == ["user", "assistant"] * (len(items) // 2)
        for message, truth in zip(sample.messages[1::2], sample.truth["questions"], strict=True):
            assert message.content == (truth["answer"],)
        assert 1 <= len(sample.truth["questions"]) <= 3


def test_what_is_no_question_stays_a_document_of_its_own():
    alone, together = World(tasks=TASKS)[0], World(tasks=TASKS, turns=3)[0]
    assert together[-1].messages[0] == alone[-1].messages[0]
    assert together[-1].truth == alone[-1].truth
    assert len({sample.name for sample in together}) == len(together)
