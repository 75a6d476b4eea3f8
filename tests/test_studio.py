"""The merchants' studio: both journeys are run and scored, and their figures mean what they say."""

import importlib
import json
import sys
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest

import chiasm
from chiasm.data.sample import ToolCall
from chiasm.data.world import Thing, World
from chiasm.serving.app import create_app
from clients import data_url
from served import served
from tiny_recipe import TINY

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def studio():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("studio")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def customers(studio):
    return sys.modules["customers"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a model that knows next to nothing, but what a tool is."""
    recipe = deepcopy(TINY)
    recipe["model"]["language"]["chat_template"] = "tools"
    recipe["model"]["heads"]["image"]["unconditional"] = 0.1
    place = tmp_path_factory.mktemp("runs") / "shop"
    chiasm.train(recipe, place)
    return str(place)


def test_a_product_is_kept_by_editing_as_well_as_the_image_tokenizer_can(studio, folder):
    result = studio.product(folder, 2, 0)
    assert set(result) == {
        "edited: a new scene", "drawn from words", "edited: one thing added", "image tokenizer alone",
    }  # fmt: skip
    for figures in result.values():
        share, low, high = figures["product is itself"]
        assert 0 <= low <= share <= high <= 1
    kept = result["edited: one thing added"]["pixels outside the mask, dB"]
    assert kept == pytest.approx(result["image tokenizer alone"]["pixels outside the mask, dB"], abs=3)


def test_an_image_is_scored_by_what_it_shows(studio, customers, folder):
    shelf = customers.Shelf(studio.worlds_of(folder)[0], 96)
    before, kept, wanted = shelf.pair(0)
    assert kept in before.things
    assert kept in wanted.things
    image = shelf.image(wanted)
    assert shelf.checker.read(image).cells[kept.cell] == kept.emoji
    assert studio._psnr(image, image, [shelf.box(kept.cell)]) > 90
    moved = shelf.image(before.holding([Thing(kept.emoji, shelf.others(kept.cell)[0])]))
    assert studio._psnr(image, moved, [shelf.box(kept.cell)]) < 40
    mask = shelf.mask(shelf.others(kept.cell))
    assert mask.getpixel(shelf.box(kept.cell)[:2]) == (0, 0, 0, 255)
    assert mask.getpixel(shelf.box(shelf.others(kept.cell)[0])[:2]) == (0, 0, 0, 0)


def test_tasks_of_every_kind_are_done_over_http(studio, customers, folder, monkeypatch):
    @contextmanager
    def in_this_process(place, log):
        with served(create_app({"model": chiasm.load(place)})) as address:
            yield SimpleNamespace(url="http://{}:{}".format(*address))

    monkeypatch.setattr(studio, "served_folder", in_this_process)
    count = len(customers.KINDS)
    result = studio.assistant(folder, count, 0)
    assert {name: figures["tasks"] for name, figures in result.items()} == {
        **dict.fromkeys(customers.KINDS, 1),
        **{"one turn": count // 2, "several turns": count // 2, "in en": count, "all": count},
    }


@pytest.fixture(params=["en", "zh"])
def customer(request, customers):
    world = World(emoji=8, grid=2, objects=(1, 2), canvas=32, scenes=8, language=request.param)
    return customers.Customer(None, customers.Shelf(world, 96), customers.shop_of(world, 8), 0)


def answered(customers, monkeypatch, *messages):
    """Have the assistant say these, one after another; what it was sent."""
    sent, left = [], list(messages)

    def post(_, path, body):
        sent.append(deepcopy(body["messages"]))
        return {"choices": [{"message": {"role": "assistant", **left.pop(0)}}]}

    monkeypatch.setattr(customers, "post", post)
    return sent


def looked_up(customer, errand):
    """What a good assistant says: a call, and the sentence on what it gave."""
    call = ToolCall(errand.service, {"product": errand.product})
    said = customer.shop.catalogue.answer(
        errand.service, errand.product, customer.shop.catalogue.look_up(call)
    )
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return [{"tool_calls": [{"id": "call00000", "function": function}]}, {"content": said}]


def drawn(image):
    return {"images": [{"image_url": {"url": data_url(image)}}]}


def test_a_look_up_is_right_only_with_the_right_call_and_the_right_answer(customers, customer, monkeypatch):
    right = looked_up(customer, customer._errand(0, shown=False))
    other = looked_up(customer, customer._errand(1, shown=False))
    for said, done in (
        (right, True),
        (right[1:], False),
        ([right[0], {"content": "4"}], False),
        (other, False),
    ):
        answered(customers, monkeypatch, *said)
        assert customer.serve("look up what is named", 0) is done


def test_a_task_of_several_turns_is_right_only_if_each_is(customers, customer, monkeypatch):
    turns = [looked_up(customer, customer._errand(i, shown=False)) for i in range(2)]
    sent = answered(customers, monkeypatch, *turns[0], *turns[1])
    assert customer.serve("look up twice", 0)
    assert [len(messages) for messages in sent] == [1, 3, 5, 7]
    assert sent[3][: len(sent[1])] == sent[1]  # the second turn begins with the first
    for wrong in range(4):
        said = [*turns[0], *turns[1]]
        said[wrong] = {"content": "I do not know."}
        answered(customers, monkeypatch, *said)
        assert not customer.serve("look up twice", 0)


def test_what_was_drawn_is_asked_about(customers, customer, monkeypatch):
    scene, question = customer._question(0, "what")
    other = next(each for each in map(customer._scene, range(8)) if each.things != scene.things)
    image, wrong = (drawn(customer.shelf.image(each.calmed(0.0))) for each in (scene, other))
    sent = answered(customers, monkeypatch, image, {"content": question.answer})
    assert customer.serve("draw, then look", 0)
    assert sent[1][1] == {"role": "assistant", **image}
    for said in ((wrong, {"content": question.answer}), (image, {"content": "?"}), ({"content": "no"}, {})):
        answered(customers, monkeypatch, *said)
        assert not customer.serve("draw, then look", 0)
