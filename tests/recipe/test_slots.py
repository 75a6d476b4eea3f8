"""Heads stand by what they write: nested in a recipe, dotted as the name of a slot."""

from copy import deepcopy

import pytest

from chiasm.errors import RecipeError
from chiasm.recipe import load_recipe
from chiasm.recipe.slots import as_written, by_slot
from tiny_recipe import TINY


def test_a_slot_is_named_by_its_place_in_the_recipe_and_back():
    written = {"encoder": {"type": "vit"}, "heads": {"image": {"type": "raster"}}, "image_decoder": {}}
    slots = by_slot(written, "model")
    assert slots == {"encoder": {"type": "vit"}, "heads.image": {"type": "raster"}, "image_decoder": {}}
    assert as_written(slots) == written


def test_a_resolved_recipe_is_written_as_it_is_read():
    recipe = load_recipe(TINY)
    assert "heads.image" in recipe.model
    written = recipe.model_dump(mode="json")
    assert set(written["model"]["heads"]) == {"image"}
    assert load_recipe(written).differs_from(recipe) == []


@pytest.mark.parametrize("train", [{"heads.image": 0.5}, {"heads": {"image": 0.5}}])
def test_a_stage_names_a_head_in_either_way(train):
    raw = deepcopy(TINY)
    raw["stages"][1]["train"] = train
    assert load_recipe(raw).stages[1].train == {"heads.image": 0.5}


def test_options_of_heads_and_their_rates_can_be_overridden():
    stage = TINY["stages"][1]["name"]
    overrides = ["model.heads.image.alphabet.deviation=0.5", f"stages.{stage}.train.heads.image=0.25"]
    recipe = load_recipe(TINY, overrides)
    assert recipe.model["heads.image"]["alphabet"] == {"type": "own", "bias": False, "deviation": 0.5}
    assert recipe.stages[1].train["heads.image"] == 0.25
    frozen = load_recipe(TINY, [f"stages.{stage}.train.heads.image=null"])
    assert "heads.image" not in frozen.stages[1].train


@pytest.mark.parametrize(
    ("heads", "error"),
    [
        ({"imag": {"type": "raster"}}, r"model has no slot 'heads.imag'; did you mean 'heads.image'"),
        ("raster", r"model\.heads must be a mapping, as in \{image: \.\.\.\}; got 'raster'"),
        (
            {"image": {"type": "raster"}},
            r"order 'raster' needs the option 'alphabet' .* at model\.heads\.image",
        ),
        (
            {"image": {"type": "raster", "alphabet": {"type": "own", "depth": 1}}},
            r"alphabet 'own' has no option 'depth'; .* \(at model\.heads\.image\.alphabet\.depth\)",
        ),
        ({"image": {"type": "rastr", "alphabet": {"type": "own"}}}, "there is no order 'rastr'"),
    ],
)
def test_heads_that_do_not_fit_are_named(heads, error):
    raw = deepcopy(TINY)
    raw["model"]["heads"] = heads
    with pytest.raises(RecipeError, match=error):
        load_recipe(raw)
