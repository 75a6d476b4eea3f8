"""Recipes: merging, overriding, checking, completing."""

import pytest
import yaml

from chiasm.errors import RecipeError
from chiasm.recipe import load_recipe, merge, recipes, write_text


def test_resolving_spells_out_every_option_and_is_stable(tiny):
    recipe = load_recipe(tiny)
    assert recipe.model["connector"] == {"type": "mlp", "depth": 2, "bias": True, "activation": "gelu"}
    assert recipe.model["routing"] == {"type": "shared"}
    assert load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


def test_override_by_dotted_key_and_stage_name(tiny):
    recipe = load_recipe(
        tiny, ["model.connector.depth=3", "stages.joint.train.language=1e-4", "stages.0.steps=9"]
    )
    assert recipe.model["connector"]["depth"] == 3
    assert recipe.stages[1].train["language"] == 1e-4
    assert recipe.stages[0].steps == 9


def test_changing_a_type_drops_the_options_of_the_old_one(tiny):
    tiny["model"]["connector"]["depth"] = 3
    assert load_recipe(tiny, ["model.connector.type=linear"]).model["connector"] == {"type": "linear"}


def test_tiny_overlay_is_laid_over_and_needed(tiny):
    tiny["tiny"] = {"stages": {"joint": {"steps": 1}}}
    assert load_recipe(tiny, tiny=True).stages[1].steps == 1
    assert load_recipe(tiny).stages[1].steps == 6
    del tiny["tiny"]
    with pytest.raises(RecipeError, match="no 'tiny' overlay"):
        load_recipe(tiny, tiny=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.connector.dept=3", "connector 'mlp' has no option 'dept'; did you mean 'depth'?"),
        ("model.conector.depth=3", "model has no slot 'conector'; did you mean 'connector'?"),
        ("model.connector.type=mpl", "there is no connector 'mpl'; did you mean 'mlp'?"),
        ("model.connector.depth=many", "model.connector.depth is 'many'"),
        ("stages.joint.stps=3", "stage 'joint' has no key 'stps'; did you mean 'steps'?"),
        ("stages.jont.steps=3", "stages has no item 'jont'; did you mean 'joint'?"),
        ("stages.joint.steps=0", "greater than 0"),
        ("stages.joint.train.encodr=1", "trains 'encodr', which the model has not; did you mean 'encoder'?"),
        ("stages.joint.train.image_tokenizer=1", "give it a stage of its own"),
        ("stages.joint.train.image_decoder=1", "trains the image decoder beside"),
        ("stages.joint.data.wold=1", "uses the data 'wold', which is not defined; did you mean 'world'?"),
        ("evaluation.data=heldout", "did you mean 'held-out'?"),
        ("sed=1", "the recipe has no key 'sed'; did you mean 'seed'?"),
        ("seed", "not of the form dotted.key=value"),
    ],
)
def test_a_wrong_word_is_an_error_with_the_nearest_name(tiny, override, message):
    with pytest.raises(RecipeError) as error:
        load_recipe(tiny, [override])
    assert message in str(error.value)


def test_an_image_tokenizer_that_holds_one_without_weights_cannot_be_trained(tiny):
    held = {"type": "patched", "tokenizer": {"type": "pixels", "size": 32, "patch_size": 4}}
    alone = {
        "name": "codes",
        "train": {"image_tokenizer": 1e-3},
        "data": {"world": 1.0},
        "steps": 1,
        "rows": 2,
    }
    recipe = {"name": "alone", "model": {"image_tokenizer": held}, "data": tiny["data"], "stages": [alone]}
    with pytest.raises(RecipeError, match="trains the image tokenizer, but 'pixels' has nothing to learn"):
        load_recipe(recipe)


def test_an_overlay_freezes_a_slot_by_null(tiny):
    tiny["tiny"] = {"stages": {"joint": {"train": {"connector": None}}}}
    assert list(load_recipe(tiny, tiny=True).stages[1].train) == ["language", "heads.image"]


def test_slots_that_belong_together_are_missed(tiny):
    del tiny["model"]["connector"]
    with pytest.raises(RecipeError, match="model lacks connector"):
        load_recipe(tiny)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        load_recipe("quickstrat")


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("- 1\n")
    with pytest.raises(RecipeError, match="must hold a mapping"):
        load_recipe(path)
    path.write_text("a: [1\n")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(path)


def test_merge_leaves_its_arguments_alone():
    base = {"a": {"b": 1}, "c": [{"name": "x", "v": 1}]}
    assert merge(base, {"a": {"d": 2}, "c": {"x": {"v": 2}}}) == {
        "a": {"b": 1, "d": 2},
        "c": [{"name": "x", "v": 2}],
    }
    assert base == {"a": {"b": 1}, "c": [{"name": "x", "v": 1}]}


def test_differences_are_named_by_dotted_key(tiny):
    one, other = load_recipe(tiny), load_recipe(tiny, ["seed=1", "model.connector.depth=3"])
    assert one.differs_from(other) == ["model.connector.depth", "seed"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_text(path, "old")
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_shipped_recipe_resolves_also_tiny(name):
    recipe = load_recipe(name)
    assert recipe.about, "a recipe says what it is and which paper it follows"
    raw = yaml.safe_load(recipes()[name].read_text(encoding="utf-8"))
    if "tiny" in raw:
        load_recipe(name, tiny=True)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("name=../../up", "would leave its folder"),
        ("name=.hidden", "no dot in front"),
        (f"name={'n' * 101}", "1 to 100"),
        ("stages.0.name=a/b", "would leave its folder"),
        ("stages.0.rows=100000000", "less than or equal"),
        ("stages.0.betas=[0.9, 1.0]", "less than 1"),
        ("stages.0.train.image_tokenizer=.nan", "not a finite number"),
        ("seed=-1", "greater than or equal to 0"),
        ("seed=99999999999999999999", "of 20 digits"),
        ("model.encoder=3", "model.encoder"),
        ("stages=3", "stages must be a list"),
        ("stages.0=3", "must be a mapping"),
        ("data=3", "data"),
        ("evaluation=[1]", "evaluation"),
        ("model.connector.factor.x=3", "factor"),
    ],
)
def test_values_out_of_bounds_or_of_another_type_are_named(override, reason):
    with pytest.raises(RecipeError, match=reason):
        load_recipe("quickstart", [override])


def test_a_base_that_names_itself(tmp_path):
    for name, base in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"base: {base}.yaml\nname: {name}\n")
    with pytest.raises(RecipeError, match="is its own base"):
        load_recipe(tmp_path / "a.yaml")


def test_an_overlay_that_is_no_mapping(tmp_path):
    for text in ("base: [1]\n", "base: quickstart\ntiny: 3\n", "base: quickstart\nmodel: 3\n"):
        (tmp_path / "a.yaml").write_text(text + "name: a\n")
        with pytest.raises(RecipeError):
            load_recipe(tmp_path / "a.yaml", tiny=True)


@pytest.mark.parametrize(
    "override",
    [
        "model.connector.depth={x}",
        "model.connector={x}",
        "model.connector.type={x}",
        "model.{x}=1",
        "{x}",
        "stages={x}",
        "stages.{x}.steps=1",
        "sampling={x}",
        "data.world.{x}=1",
        "name={x}",
    ],
)
def test_an_error_quotes_a_long_value_in_part(override):
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", [override.replace("{x}", "x" * 5000)])
    assert len(str(caught.value)) < 1000
    assert len(str(caught.value).splitlines()) == 1


def test_a_mapping_that_holds_no_plain_data_is_a_sentence(tiny):
    with pytest.raises(RecipeError, match="no plain data"):
        load_recipe(tiny | {"about": memoryview(b"x")})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.joint.betas=[0.9]", "stages.joint.betas: it must have 2 items, not 1"),
        ("stages.joint.betas=[]", "stages.joint.betas: it must have 2 items, not 0"),
        ("stages.joint.betas=[0.1, 0.2, 0.3]", "stages.joint.betas: it must have at most 2 items, not 3"),
        ("evaluation.labelled=[world]", "evaluation.labelled: it must have 2 items, not 1"),
        ("stages.1.steps=0", "stages.joint.steps: input should be greater than 0"),
    ],
)
def test_what_is_wrong_in_a_list_is_said_of_it_and_its_items_have_names(tiny, override, message):
    with pytest.raises(RecipeError) as error:
        load_recipe(tiny, [override])
    assert message in str(error.value)


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("model",),
        ("model", "heads"),
        ("model", "heads", "image"),
        ("model", "connector"),
        ("data",),
        ("data", "world"),
        ("stages", 0),
        ("stages", 0, "train"),
        ("stages", 0, "data"),
    ],
)
def test_a_key_that_is_no_text_is_refused_wherever_it_stands(tiny, place):
    section = tiny
    for key in place:
        section = section[key]
    for value in ("x", {"type": "x"}):
        section[3] = value
        with pytest.raises(RecipeError, match=r"\b3\b"):
            load_recipe(tiny)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{type: world, emoji: 3}", "data.foo: world: emoji is 3; at least 9"),
        ("{type: world, grid: 0}", "data.foo.grid is 0: input should be greater than or equal to 1"),
        ("{type: world, seed: -1}", "data.foo.seed is -1"),
        ("{type: world, tasks: {what: -1}}", "what asks for -1 documents of a scene; 0 to 10,000"),
        ("{type: world, tints: 9}", "data.foo.tints is 9"),
        ("{type: world, held_out: 0}", "data.foo.held_out is 0"),
        ("{type: maze, steps: [5, 2]}", "data.foo: maze: steps is"),
        ("{type: binding, cell: 2}", "data.foo: binding: cell is 2"),
        ("{type: shop, emoji: 3}", "data.foo: the shelves: world: emoji is 3"),
        ("{type: moving_world, sides: [2, 3]}", "data.foo: moving_world: sides is"),
        ("{type: pages, rows: [9, 1]}", "data.foo: pages: rows is [9, 1]"),
        ("{type: denoising, of: {type: world}, hidden: 0.99}", "data.foo: data source 'denoising' hides"),
        ("{type: films, of: {type: moving_world, clips: 0}}", "data.foo.of.clips is 0"),
    ],
)
def test_a_data_source_is_checked_though_nothing_uses_it(tiny, spec, message):
    with pytest.raises(RecipeError) as error:
        load_recipe(tiny, [f"data.foo={spec}"])
    assert message in str(error.value)
