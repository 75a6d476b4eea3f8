"""The learning rate at every step, who is decayed, and what is said of what is trained."""

import pytest
import torch
from toy import toy

from chiasm.errors import CheckpointError, RecipeError
from chiasm.recipe import Stage
from chiasm.training.optimiser import optimiser, optimiser_state, rate, restore_optimiser, table
from chiasm.training.train import build_model


def stage(**options):
    return Stage(name="s", train={"language": 1e-3}, data={"squares": 1.0}, **options)


def rates(**options):
    made = stage(**options)
    return [rate(made, step) for step in range(made.steps)]


def test_schedules_by_hand():
    warm = {"steps": 6, "warmup": 1 / 3}
    assert rates(schedule="constant", **warm) == pytest.approx([0.5, 1, 1, 1, 1, 1])
    assert rates(schedule="linear", **warm) == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert rates(schedule="cosine", **warm) == pytest.approx([0.5, 1, 1, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_without_warmup_the_first_step_has_the_full_rate():
    assert rates(schedule="linear", steps=2, warmup=0.0) == [1, 0.5]


def test_each_slot_has_its_rate_and_only_matrices_decay():
    recipe = toy("stages.learn.train.connector=0.5")
    model = build_model(recipe)
    model.train_only(recipe.stages[1].train)
    made = optimiser(model, recipe.stages[1])
    peaks = {group["slot"]: group["peak"] for group in made.param_groups}
    assert peaks == {"connector": 0.5, "language": 0.002, "image_head": 0.002}
    decayed = {name for group in made.param_groups if group["weight_decay"] for name in group["names"]}
    assert "connector.layers.0.weight" in decayed
    assert "image_head.output.weight" in decayed
    assert "connector.layers.0.bias" not in decayed
    assert "image_head.codes.weight" not in decayed
    assert not any("embed" in name or "norm" in name or "lm_head" in name for name in decayed)


def test_the_table_says_what_is_trained():
    recipe = toy()
    model = build_model(recipe)
    model.train_only(recipe.stages[1].train)
    rows = {row.slot: row for row in table(model, recipe.stages[1])}
    assert rows["encoder"].trained == 0 < rows["encoder"].parameters
    assert rows["connector"].trained == rows["connector"].parameters == 16 * 32 + 32 + 32 * 32 + 32
    assert rows["connector"].rate == 0.002
    assert list(rows)[:3] == ["views", "encoder", "connector"]


def test_a_slot_without_parameters_cannot_be_trained():
    recipe = toy("stages.learn.train.routing=1e-3")
    with pytest.raises(RecipeError, match="trains 'routing', but 'shared' has no parameters"):
        optimiser(build_model(recipe), recipe.stages[1])


def test_a_state_of_other_parameters_is_refused():
    recipe = toy()
    model = build_model(recipe)
    made = optimiser(model, recipe.stages[1])
    with pytest.raises(CheckpointError, match=r"encoder\.x"):
        restore_optimiser(made, {"encoder.x/exp_avg": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"connector\.layers\.0\.bias.*\(3,\)"):
        restore_optimiser(made, {"connector.layers.0.bias/exp_avg": torch.zeros(3)})
    assert optimiser_state(made) == {}


def test_muon_takes_the_matrices_of_the_stacks_and_adamw_the_rest():
    recipe = toy("stages.learn.optimiser=muon")
    model = build_model(recipe)
    model.train_only(recipe.stages[1].train)
    made = optimiser(model, recipe.stages[1])
    muon = {name for group in made.muon.param_groups for name in group["names"]}
    adamw = {name for group in made.adamw.param_groups for name in group["names"]}
    assert any("q_proj" in name for name in muon)
    assert any("down_proj" in name for name in muon)
    assert not any("embed" in name or "norm" in name or "lm_head" in name for name in muon)
    assert {"connector.layers.0.weight", "image_head.output.weight"} <= adamw
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert muon | adamw == trained
    assert not muon & adamw


def test_the_state_of_muon_is_put_back_bit_for_bit():
    recipe = toy("stages.learn.optimiser=muon")
    results = []
    for interrupted in (False, True):
        torch.manual_seed(0)
        model = build_model(recipe)
        model.train_only(recipe.stages[1].train)
        made = optimiser(model, recipe.stages[1])
        for step in range(4):
            if interrupted and step == 2:
                kept = optimiser_state(made)
                made = optimiser(model, recipe.stages[1])
                restore_optimiser(made, kept)
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.randn(parameter.shape, generator=generator)
            made.step()
        results.append({name: value.clone() for name, value in model.state_dict().items()})
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
