"""Training on from a checkpoint, and adding an image head to a model that only sees."""

import json

import pytest
import torch

from chiasm import load
from chiasm.errors import ChiasmError
from chiasm.recipe import load_recipe
from chiasm.training.train import build_model, train

QUESTIONS = {"what": 1, "where": 1, "count": 1}


@pytest.fixture
def seeing(tiny, tmp_path):
    """The run of a model that only sees."""
    drawing = {slot: tiny["model"].pop(slot) for slot in ("image_tokenizer", "heads")}
    codes, joint = tiny["stages"]
    for source in tiny["data"].values():
        source["tasks"] = QUESTIONS
    del joint["train"]["heads.image"]
    recipe = load_recipe({**tiny, "stages": [joint]})
    return train(recipe, tmp_path / "seeing"), tiny, drawing, codes


def test_an_added_image_head_leaves_the_answers_of_a_frozen_language_model_bit_equal(seeing, tmp_path):
    folder, tiny, drawing, codes = seeing
    tiny["data"]["world"]["tasks"] = {"draw": 1}
    joint = {"name": "draw", "train": {"heads.image": 1e-2}, "data": {"world": 1.0}, "steps": 4, "rows": 2}
    recipe = load_recipe(
        {
            "name": "both",
            "start": str(folder),
            "model": drawing,
            "data": tiny["data"],
            "stages": [codes, joint],
        }
    )
    both = load(train(recipe, tmp_path / "both"))
    alone = load(folder)
    assert both.draws
    assert not alone.draws
    words = len(alone.language.tokenizer)
    hidden = torch.randn(5, alone.language.width)
    ids = torch.arange(words)
    assert torch.equal(both.language.embed(ids), alone.language.embed(ids))
    assert torch.equal(both.language.logits(hidden)[:, :words], alone.language.logits(hidden))
    for question in ("Where is the dog?", "How many?"):
        assert str(both.chat(question, tokens=6)) == str(alone.chat(question, tokens=6))
    assert both.generate("Draw: a dog.")[0].size == (32, 32)


def test_all_slots_that_are_the_same_begin_with_the_weights_of_the_checkpoint(seeing):
    folder, tiny, _, _ = seeing
    again = load_recipe({"name": "on", "start": str(folder), "data": tiny["data"], "stages": []})
    made, kept = build_model(again).state_dict(), load(folder).state_dict()
    assert made.keys() == kept.keys()
    assert all(torch.equal(made[name], kept[name]) for name in kept)
    other = load_recipe(
        {
            "name": "on",
            "start": str(folder),
            "model": {"connector": {"type": "linear"}},
            "data": {},
            "stages": [],
        }
    )
    changed = build_model(other).state_dict()
    assert not torch.equal(changed["connector.layer.weight"], kept["connector.layers.0.weight"])
    assert torch.equal(changed["language.inner.lm_head.weight"], kept["language.inner.lm_head.weight"])


@pytest.mark.parametrize(("model", "afresh"), [({}, []), ({"connector": {"type": "linear"}}, ["connector"])])
def test_slots_without_weights_in_the_checkpoint_are_said_and_kept_in_the_runs_record(
    seeing, tmp_path, capsys, model, afresh
):
    folder, tiny, _, _ = seeing
    joint = {"name": "on", "train": {"connector": 1e-3}, "data": {"world": 1.0}, "steps": 1, "rows": 2}
    recipe = {"name": "on", "start": str(folder), "model": model, "data": tiny["data"], "stages": [joint]}
    on = train(load_recipe(recipe), tmp_path / "on")
    assert json.loads((on / "run.json").read_text())["begun_afresh"] == afresh
    line = f"{folder / 'final'} has no weights for connector, which begin afresh"
    assert (line in capsys.readouterr().out) == bool(afresh)


def test_a_resolved_recipe_says_which_weights_it_began_with(seeing, tmp_path):
    folder, tiny, _, _ = seeing
    recipe = load_recipe({"name": "on", "start": str(folder), "data": tiny["data"], "stages": []})
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    weights = folder / "final" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ChiasmError, match="has other weights than when this recipe was resolved"):
        build_model(recipe)


def test_a_start_that_does_not_fit_is_said(seeing):
    folder = seeing[0]
    wider = {"language": {"config": {"hidden_size": 48}}}
    with pytest.raises(ChiasmError, match="of another shape"):
        build_model(
            load_recipe({"name": "on", "start": str(folder), "model": wider, "data": {}, "stages": []})
        )
    drawn = {"language": {"embedding_std": 0.5}}
    with pytest.raises(
        ChiasmError, match=r"embedding_std is of models from scratch; the start .* has tables"
    ):
        load_recipe({"name": "on", "start": str(folder), "model": drawn, "data": {}, "stages": []})
    with pytest.raises(ChiasmError, match="there is no folder"):
        load_recipe({"name": "on", "start": str(folder / "none"), "data": {}, "stages": []})


def test_some_parts_alone_are_taken_over(seeing, tmp_path):
    folder, tiny, _, _ = seeing
    start = {"folder": str(folder), "slots": ["encoder", "connector"]}
    wider = {
        **tiny["model"]["language"],
        "config": {**tiny["model"]["language"]["config"], "num_hidden_layers": 1},
    }
    raw = {"name": "on", "start": start, "data": tiny["data"], "stages": tiny["stages"][1:]}
    with pytest.raises(ChiasmError, match="which the model has not"):  # the other parts are the recipe's own
        load_recipe(raw)
    own = {"views": tiny["model"]["views"], "language": wider}
    recipe = load_recipe({**raw, "model": own})
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    made, kept = build_model(recipe).state_dict(), load(folder).state_dict()
    assert torch.equal(made["connector.layers.0.weight"], kept["connector.layers.0.weight"])
    assert not torch.equal(made["language.inner.lm_head.weight"], kept["language.inner.lm_head.weight"])
    with pytest.raises(ChiasmError, match=r"start\.slots names 'conector', which .*did you mean 'connector'"):
        load_recipe({**raw, "start": {**start, "slots": ["conector"]}, "model": own})
    with pytest.raises(ChiasmError, match="start must be the folder of a checkpoint, or"):
        load_recipe({**raw, "start": {"place": str(folder)}, "model": own})
