"""The merchants' studio: both journeys are run and scored, and their figures mean what they say."""

import importlib.util
import sys
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest

import chiasm
from chiasm.data.world import Thing
from chiasm.serving.app import create_app
from served import served
from tiny_recipe import TINY

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def studio():
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("studio", BENCHMARKS / "studio.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(BENCHMARKS))


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


def test_an_image_is_scored_by_what_it_shows(studio, folder):
    shelf = studio.Shelf(studio.world_of(folder), 96)
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


def test_errands_of_every_kind_are_done_over_http(studio, folder, monkeypatch):
    @contextmanager
    def in_this_process(place, log):
        with served(create_app({"model": chiasm.load(place)})) as address:
            yield SimpleNamespace(url="http://{}:{}".format(*address))

    monkeypatch.setattr(studio, "served_folder", in_this_process)
    result = studio.assistant(folder, len(studio.KINDS), 0)
    assert {name: figures["tasks"] for name, figures in result.items()} == {
        **dict.fromkeys(studio.KINDS, 1), "all": len(studio.KINDS),
    }  # fmt: skip


def test_a_look_up_is_right_only_with_the_right_call_and_the_right_answer(studio, folder):
    world = studio.world_of(folder)
    shop = studio.Shop(emoji=len(world.emoji), strangers=16, grid=2, objects=(1, 2))
    customer = studio.Customer(None, studio.Shelf(world, 32), shop, 0)
    errand = shop.errands(0)[0]
    call = studio.ToolCall(errand.service, {"product": errand.product})
    right = shop.catalogue.answer(errand.service, errand.product, shop.catalogue.look_up(call))
    assert customer._is_right(errand, [call], right)
    assert not customer._is_right(errand, [], right)
    assert not customer._is_right(errand, [call], "4 coins")
    other = studio.ToolCall(errand.service, {"product": "a lie"})
    assert not customer._is_right(errand, [other], right)
