"""Recipes built on a base."""

import pytest
import yaml

from chiasm.errors import RecipeError
from chiasm.recipe import load_recipe
from chiasm.recipe.overlay import merge, on_base


@pytest.fixture
def folder(tmp_path, tiny):
    (tmp_path / "shared").mkdir()
    tiny.pop("name")
    tiny["tiny"] = {"stages": {"joint": {"steps": 5}}}
    (tmp_path / "shared" / "base.yaml").write_text(yaml.safe_dump(tiny))
    return tmp_path


def recipe(folder, **content):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "shared/base.yaml", "name": "mine"} | content))
    return path


def test_a_recipe_says_only_what_differs_from_its_base(folder):
    path = recipe(folder, stages={"joint": {"rows": 3}}, tiny={"stages": {"joint": {"length": 64}}})
    made = load_recipe(path)
    assert (made.name, made.stages[1].rows, made.stages[1].steps) == ("mine", 3, 6)
    small = load_recipe(path, tiny=True)
    assert (small.stages[1].rows, small.stages[1].steps, small.stages[1].length) == (3, 5, 64)


def test_a_part_of_another_type_starts_afresh(folder):
    made = load_recipe(recipe(folder, model={"encoder": {"type": "vit"}}))
    assert made.model["encoder"]["patch_size"] == 16


def test_null_takes_an_item_out_of_a_list_and_leaves_the_places_of_the_others(folder):
    assert [stage.name for stage in load_recipe(recipe(folder, stages={"codes": None})).stages] == ["joint"]
    laid = merge({"sizes": [None, 1, {"name": "two"}]}, {"sizes": {"1": None, "two": {"a": 2}}})
    assert laid == {"sizes": [None, {"name": "two", "a": 2}]}


def test_an_empty_mapping_over_a_filled_one_is_an_error_that_says_what_takes_items_out(folder):
    path = recipe(folder)
    for key, item in (
        ("stages.joint.data", "world"),
        ("stages", "codes"),
        ("data", "held-out"),
        ("model", "connector"),
    ):
        with pytest.raises(RecipeError, match=rf"^{key} is an empty mapping, .* {key}\.{item}=null"):
            load_recipe(path, [f"{key}={{}}"])
    with pytest.raises(RecipeError, match=r"stages\.joint\.data is an empty mapping"):
        load_recipe(recipe(folder, stages={"joint": {"data": {}}}))
    assert merge({"weights": {}, "depth": 1}, {"weights": {}, "depth": {}}) == {"weights": {}, "depth": {}}


def test_null_takes_out_what_has_a_name_of_the_recipe_s_own(folder):
    changes = ["data.more={type: world}", "stages.joint.data.more=1.0", "stages.joint.data.world=null"]
    changes += ["evaluation.tasks.zoom={}", "evaluation.tasks.zoom=null", "stages.joint.train.connector=null"]
    changes += [f"model.{slot}=null" for slot in ("views", "encoder", "connector")]
    loaded = load_recipe(recipe(folder), changes)
    assert dict(loaded.stages[1].data) == {"more": 1.0}
    assert not {"encoder", "views", "connector"} & loaded.model.keys()
    with pytest.raises(RecipeError, match="uses the data 'world', which is not defined"):
        load_recipe(recipe(folder), ["data.world=null"])


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("data.wrld", "data.wrld is null, but there is no 'wrld' to take out; did you mean 'world'"),
        ("stages.joint.data.wrld", "stages.joint.data.wrld is null, but there is no 'wrld'"),
        ("stages.joint.weights.image", "stages.joint.weights.image is null, but there is no 'image'"),
        ("evaluation.tasks.zoom", "evaluation.tasks.zoom is null, but there is no 'zoom'"),
        ("model.encodr", "model has no slot 'encodr'; did you mean 'encoder'"),
        ("stages.jont", "stages has no item 'jont'; did you mean 'joint'"),
    ],
)
def test_null_for_what_is_not_there_is_an_error(folder, key, sentence):
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe(folder), [f"{key}=null"])
    assert sentence in str(error.value)


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"model": "x"}, "model must be a mapping, not 'x'"),
        ({"model": {"heads": "raster"}}, "model.heads must be a mapping, not 'raster'"),
        ({"model": {"connector": "mlp"}}, "model.connector must be a mapping, not 'mlp'"),
        (
            {"model": {"language": {"config": 7}}},
            "model.language.config must be a mapping, not 7: it is laid",
        ),
        ({"data": {"world": 7}}, "data.world must be a mapping, not 7"),
        ({"stages": {"joint": 7}}, "a stage must be a mapping, not 7"),
        ({"stages": {"joint": {"data": 7}}}, "stages.joint.data must be a mapping, not 7"),
        ({"stages": 7}, "stages must be a list, not 7"),
        ({"evaluation": None}, "evaluation must be a mapping, not None"),
        ({"tiny": 7}, "tiny must be a mapping, not 7"),
        ({"tiny": {"stages": {"joint": 7}}}, "tiny.stages.joint must be a mapping, not 7"),
    ],
)
def test_what_is_laid_over_a_mapping_is_one(folder, content, sentence, small):
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe(folder, **content), tiny=small)
    assert str(error.value).startswith(sentence)


def test_tiny_hides_no_part_that_is_none(folder, tiny):
    for raw in ({**tiny, "model": "x"}, {**tiny, "model": {**tiny["model"], "connector": "x"}}):
        with pytest.raises(RecipeError, match=r"^model(\.connector)? must be a mapping, not 'x'"):
            load_recipe({**raw, "name": "x", "tiny": {"model": {"connector": {"type": "linear"}}}}, tiny=True)


def test_the_tiny_of_a_base_loses_what_the_recipe_takes_out():
    base = {
        "model": {"encoder": {"type": "vit"}, "heads": {"image": {"type": "raster"}}},
        "data": {"a": {"type": "world"}, "b": {"type": "world"}},
        "stages": [{"name": "one", "data": {"a": 1}}, {"name": "two", "data": {"a": 1, "b": 1}}],
        "tiny": {
            "model": {"encoder": {"depth": 1}, "heads": {"image": {"depth": 1}}},
            "data": {"a": {"emoji": 8}, "b": {"emoji": 8}},
            "stages": {"one": {"steps": 1}, "two": {"data": {"b": 0.5}, "steps": 2}, "tow": {"steps": 3}},
        },
    }
    stages = {"one": None, "two": {"data": {"b": None}}}
    model = {"encoder": None, "heads": {"image": None}}
    laid = on_base(base, {"data": {"b": None}, "stages": stages, "model": model})
    assert laid["tiny"] == {"data": {"a": {"emoji": 8}}, "stages": {"two": {"steps": 2}, "tow": {"steps": 3}}}
    listed = on_base(base, {"stages": [{"name": "three"}], "tiny": {"stages": {"one": {"rows": 1}}}})
    assert listed["tiny"]["stages"] == {"tow": {"steps": 3}, "one": {"rows": 1}}


def test_tiny_works_without_a_stage_of_the_base_but_names_none_itself(folder):
    assert [
        stage.name for stage in load_recipe(recipe(folder, stages={"joint": None}), tiny=True).stages
    ] == ["codes"]
    path = recipe(folder, stages={"joint": None}, tiny={"stages": {"joint": {"rows": 2}}})
    with pytest.raises(RecipeError, match="stages has no item 'joint'"):
        load_recipe(path, tiny=True)


@pytest.mark.parametrize(
    "key", ["seed", "stages.joint.steps", "stages.joint.train.language", "sampling.guidance"]
)
def test_a_boolean_is_no_number_of_a_section(folder, key):
    with pytest.raises(RecipeError, match="a boolean is no number"):
        load_recipe(recipe(folder), [f"{key}=true"])


def test_an_override_has_a_value(folder):
    with pytest.raises(RecipeError, match=r"^override 'stages\.joint=' has no value; stages\.joint=null"):
        load_recipe(recipe(folder), ["stages.joint="])


def test_a_base_may_have_a_base(folder):
    recipe(folder)
    (folder / "yours.yaml").write_text("{base: mine.yaml, name: yours, seed: 4}")
    made = load_recipe(folder / "yours.yaml")
    assert (made.name, made.seed, len(made.stages)) == ("yours", 4, 2)


def test_what_is_saved_needs_no_base(folder):
    made = load_recipe(recipe(folder))
    assert "base" not in made.to_yaml()


def test_a_base_that_is_not_there(folder):
    with pytest.raises(RecipeError, match=r"there is no recipe at shared/bass\.yaml"):
        load_recipe(recipe(folder, base="shared/bass.yaml"))


@pytest.mark.parametrize("index", ["²", "9" * 5000, "٣", "-1", "7"])
def test_an_index_that_is_none_is_a_sentence(index):
    with pytest.raises(RecipeError, match="stages has no item"):
        merge({"stages": [{"name": "one", "steps": 2}]}, {"stages": {index: {"steps": 1}}})
