"""Several turns in a document: questions about one picture, and changes of pictures that are named by number."""

import pytest

from chiasm.data import Picture
from chiasm.data.documents import document
from chiasm.data.world import World
from chiasm.data.world.questions import QUESTIONS
from chiasm.sequence import Kind

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


def cells(scene):
    return {thing.cell: thing.emoji for thing in scene.things}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_second_change_is_of_the_picture_that_is_named(language):
    world, named = World(tasks={"referred": 2}, language=language, objects=(1, 4)), set()
    for sample in [sample for index in range(10) for sample in world[index]]:
        first, changed, second, answer = (message.content for message in sample.messages)
        assert [message.role for message in sample.messages] == ["user", "assistant"] * 2
        assert [isinstance(item, Picture) for item in (*first, *changed, *second, *answer)] == [
            *(True, False),
            True,
            False,
            True,
        ]
        number, truth = sample.truth["picture"], sample.truth
        named.add(number)
        assert second[0].startswith(world.say.again.format(number=number))
        shown = (first, changed)[number - 1][0].scene
        assert cells(truth["before"]) == cells(shown)
        assert cells(truth["scene"]) == cells(answer[0].scene)
        assert cells(truth["scene"]) != cells(truth["before"])
        assert truth["kind"] in ("move", "replace", "remove")
        assert not {"earlier", "masks"} & truth.keys()
    assert named == {1, 2}
    assert world.change(sample).mask().any()


def test_a_thing_that_comes_into_a_named_picture_was_not_there():
    world = World(tasks={"referred": 1}, objects=(1, 2))
    for sample in [sample for index in range(20) for sample in world[index]]:
        if sample.truth["kind"] == "replace":
            before, after = (set(cells(sample.truth[each]).values()) for each in ("before", "scene"))
            assert len(after - before) == 1


def test_a_model_reads_all_pictures_of_the_turns_and_learns_both_answers(tiny_model):
    model, _ = tiny_model
    world = World(
        tasks={"referred": 1}, emoji=8, unseen=4, grid=2, canvas=32, drawn_canvas=32, objects=(1, 2)
    )
    made = document(model.contract, world[0][0])
    assert [slot.kind for slot in made.slots] == [Kind.READ, Kind.WRITTEN, Kind.WRITTEN]
