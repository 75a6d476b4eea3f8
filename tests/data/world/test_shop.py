"""The world as a shop: what customers ask, what tools give, what the assistant says."""

import pytest

from chiasm.data.contract import Contract
from chiasm.data.documents import document
from chiasm.data.sample import Picture, ToolCall
from chiasm.data.world.shop import SERVICES, TOOLS, Catalogue, Shop
from chiasm.data.world.shop_wordings import ASKED, SHOWN
from chiasm.language.text import TextTokenizer


@pytest.fixture(scope="module", params=["en", "zh"])
def shop(request):
    return Shop(emoji=12, strangers=16, scenes=60, language=request.param)


def samples(shop):
    return [sample for index in range(len(shop)) for sample in shop[index]]


def test_every_answer_follows_from_what_the_tool_gives(shop):
    for sample in samples(shop):
        _, called, given, answer = sample.messages
        (call,) = called.calls
        assert given.call == call
        assert given.content[0] == shop.catalogue.look_up(call)
        missing = given.content[0] == shop.catalogue.words["missing"]
        assert missing or call.name == "find" or given.content[0] in answer.content[0]
        assert call.arguments["product"] in answer.content[0]
        assert sample.tools == TOOLS


def test_a_product_that_is_shown_is_not_named_and_stands_where_it_is_pointed_at(shop):
    shown = 0
    for index in range(len(shop)):
        scene = shop.world.scene(index)
        for errand in shop.errands(index):
            if errand.image is None:
                assert errand.product in errand.text
                continue
            shown += 1
            names = [shop.world.say.cell(cell, scene.grid) for cell in range(scene.cells)]
            place = names.index(max((name for name in names if name in errand.text), key=len))
            (thing,) = (thing for thing in scene.things if thing.cell == place)
            assert shop.world.say.name(thing.emoji) == errand.product
    assert shown > 100


def test_a_shelf_holds_two_to_four_products_and_two_errands_of_either_kind():
    shop = Shop()
    assert {len(shop.world.scene(index).things) for index in range(60)} == {2, 3, 4}
    for index in range(10):
        assert [errand.image is None for errand in shop.errands(index)].count(True) == 2
        assert len(shop.errands(index)) == 4


def test_what_is_not_sold_is_asked_for_about_as_often_as_what_is(shop):
    found = [s.messages[2].content[0] for s in samples(shop) if s.truth["type"] == "find"]
    missing = found.count(shop.catalogue.words["missing"]) / len(found)
    assert 0.25 < missing < 0.75


def test_no_held_out_question_is_one_of_training():
    for wordings in (ASKED, SHOWN):
        for services in wordings.values():
            for by_split in services.values():
                assert not set(by_split["train"]) & set(by_split["held_out"])


def test_prices_are_those_of_the_seed_and_nonsense_finds_nothing(shop):
    again, other = (Catalogue(shop.world.emoji, shop.language, seed) for seed in (0, 1))
    calls = [ToolCall("price", {"product": name}) for name in shop.catalogue.products]
    prices = [[catalogue.look_up(call) for call in calls] for catalogue in (shop.catalogue, again, other)]
    assert prices[0] == prices[1] != prices[2]
    assert len(set(prices[0])) > 6
    for call in (
        ToolCall("price", {}),
        ToolCall("price", {"product": 3}),
        ToolCall("steal", {"product": "cat"}),
    ):
        assert shop.catalogue.look_up(call) == shop.catalogue.words["missing"]


def test_the_template_for_tools_learns_calls_and_answers(shop):
    texts = [
        item
        for sample in samples(shop)
        for message in sample.messages
        for item in message.content
        if not isinstance(item, Picture)
    ]
    tokenizer = TextTokenizer.train(texts, 600)
    tokenizer.use_template("tools")
    sample = next(s for s in samples(shop) if not isinstance(s.messages[0].content[0], Picture))
    made = document(Contract(tokenizer, 400), sample)
    text = tokenizer.inner.decode([id for id in made.labels if id >= 0])
    assert text.startswith("<|call|>{")
    assert text.endswith(sample.messages[-1].content[0] + tokenizer.inner.eos_token)
    assert all(name in tokenizer.inner.decode(made.ids) for name in SERVICES)


def test_a_visit_goes_on_about_one_shelf():
    """Every answer is that of a look at the shelf or of the tool; calls have names of their own."""
    shop = Shop(emoji=12, strangers=16, scenes=80, named=0, shown=0, visits=2)
    beginnings, turns, drawn_and_asked = set(), set(), 0
    for index in range(len(shop)):
        scene = shop.world.scene(index)
        cells = [shop.world.say.cell(cell, scene.grid) for cell in range(scene.cells)]
        names = {shop.world.say.name(thing.emoji) for thing in scene.things}
        for sample in shop[index]:
            users = [message for message in sample.messages if message.role == "user"]
            calls = [call for message in sample.messages for call in message.calls]
            turns.add(len(users))
            images = [
                (message.role, item)
                for message in sample.messages
                for item in message.content
                if isinstance(item, Picture)
            ]
            beginnings.add(images[0][0] if images else "look up")
            assert len(images) <= 1
            assert [call.id for call in calls] == [f"call{i:05}" for i in range(1, len(calls) + 1)]
            assert not calls or sample.tools == TOOLS
            answers = {str(m.content[0]) for m in sample.messages if m.role == "assistant" and m.content}
            looks = answers - {a for a in answers if a.endswith(".")} - {str(image) for _, image in images}
            assert looks <= {*cells, *names, "yes", "no", "nothing", "nowhere"}, looks
            drawn_and_asked += bool(images and images[0][0] == "assistant" and looks)
    assert (beginnings, turns) == ({"user", "assistant", "look up"}, {2, 3})
    assert drawn_and_asked > 10


def test_visits_change_nothing_else():
    plain, more = Shop(emoji=12, scenes=10), Shop(emoji=12, scenes=10, visits=2)
    for index in range(10):
        assert [s.messages[0].content[-1] for s in plain[index]] == [
            s.messages[0].content[-1] for s in more[index][:-2]
        ]
    assert plain.fingerprint != more.fingerprint
