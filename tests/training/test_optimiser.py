"""The learning rate at every step, who is decayed, and what is said of what is trained."""

from copy import deepcopy

import pytest
import torch
from toy import raw, toy

from chiasm.errors import CheckpointError, RecipeError
from chiasm.objectives import Objective
from chiasm.recipe import Stage, load_recipe
from chiasm.training.optimiser import (
    _can_fuse,
    build_optimiser,
    optimiser_state,
    rate,
    restore_optimiser,
    set_rate,
    table,
)
from chiasm.training.train import build_model
from tiny_recipe import TINY


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
    made = build_optimiser(model, recipe.stages[1])
    peaks = {group["slot"]: group["peak"] for group in made.param_groups}
    assert peaks == {"connector": 0.5, "language": 0.002, "heads.image": 0.002}
    decayed = {name for group in made.param_groups if group["weight_decay"] for name in group["names"]}
    assert "connector.layers.0.weight" in decayed
    assert "heads.image.alphabet.output.weight" in decayed
    assert "connector.layers.0.bias" not in decayed
    assert "heads.image.alphabet.codes.weight" not in decayed
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
        build_optimiser(build_model(recipe), recipe.stages[1])


def test_a_state_of_other_parameters_is_refused():
    recipe = toy()
    model = build_model(recipe)
    made = build_optimiser(model, recipe.stages[1])
    with pytest.raises(CheckpointError, match=r"encoder\.x"):
        restore_optimiser(made, {"encoder.x/exp_avg": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"connector\.layers\.0\.bias.*\(3,\)"):
        restore_optimiser(made, {"connector.layers.0.bias/exp_avg": torch.zeros(3)})
    assert optimiser_state(made) == {}


@pytest.mark.parametrize(("before", "now"), [("adamw", "muon"), ("muon", "adamw")])
def test_a_state_of_the_other_optimiser_is_refused(before, now):
    """It would lie beside the parameter unread, and its moments begin at zero without a word."""
    recipe = toy(f"stages.learn.optimiser={now}")
    model = build_model(recipe)
    model.train_only(recipe.stages[1].train)
    made = build_optimiser(model, recipe.stages[1])
    name = next(
        each for group in made.param_groups for each in group["names"] if each.endswith("q_proj.weight")
    )
    keys, names = {"adamw": "exp_avg", "muon": "momentum_buffer"}, {"adamw": "AdamW", "muon": "Muon"}
    with pytest.raises(CheckpointError, match=rf"q_proj\.weight.*, which {names[now]} takes now"):
        restore_optimiser(made, {f"{name}/{keys[before]}": torch.zeros(1)})


def test_muon_takes_the_matrices_of_the_stacks_and_adamw_the_rest():
    recipe = toy("stages.learn.optimiser=muon")
    model = build_model(recipe)
    model.train_only(recipe.stages[1].train)
    made = build_optimiser(model, recipe.stages[1])
    muon = {name for group in made.muon.param_groups for name in group["names"]}
    adamw = {name for group in made.adamw.param_groups for name in group["names"]}
    assert any("q_proj" in name for name in muon)
    assert any("down_proj" in name for name in muon)
    assert not any("embed" in name or "norm" in name or "lm_head" in name for name in muon)
    assert {"connector.layers.0.weight", "heads.image.alphabet.output.weight"} <= adamw
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
        made = build_optimiser(model, recipe.stages[1])
        for step in range(4):
            if interrupted and step == 2:
                kept = optimiser_state(made)
                made = build_optimiser(model, recipe.stages[1])
                restore_optimiser(made, kept)
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.randn(parameter.shape, generator=generator)
            made.step()
        results.append({name: value.clone() for name, value in model.state_dict().items()})
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_muon_takes_the_linear_layers_of_encoder_language_and_tokenizer():
    recipe = toy("stages.learn.optimiser=muon", "stages.learn.train.encoder=1e-3")
    model = build_model(recipe)
    model.train_only(recipe.stages[1].train)
    made = build_optimiser(model, recipe.stages[1])
    slots = {group["slot"] for group in made.muon.param_groups}
    assert slots == {"encoder", "language"}
    shapes = {p.ndim for group in made.muon.param_groups for p in group["params"]}
    assert shapes == {2}
    assert any(
        p.ndim == 4 for group in made.adamw.param_groups for p in group["params"]
    )  # the encoder's patches
    assert {group["weight_decay"] for group in made.muon.param_groups} == {0.1}
    assert made.param_groups == [*made.adamw.param_groups, *made.muon.param_groups]


def test_muon_takes_the_linear_layers_of_a_denoiser_too():
    raw, dit = deepcopy(TINY), {"type": "dit", "width": 32, "depth": 1, "heads": 2}
    raw["model"] = {
        "image_tokenizer": {"type": "pixels", "size": 16, "patch_size": 8},
        "image_decoder": {"type": "diffusion", "size": 16, "denoiser": dit, "conditioner": {"type": "linear"},
                          "scheduler": {"type": "flow"}, "steps": 2},
    }  # fmt: skip
    paint = {"name": "paint", "train": {"image_decoder": 1e-3}, "data": {"world": 1.0}, "steps": 1}
    raw["stages"] = [paint | {"optimiser": "muon"}]
    recipe = load_recipe(raw)
    model = build_model(recipe)
    model.train_only(recipe.stages[0].train)
    muon = build_optimiser(model, recipe.stages[0]).muon.param_groups
    learning = {p for group in muon for p in group["params"]}
    assert learning == {p for p in model.image_decoder.parameters() if p.ndim == 2}


def test_muon_takes_gpt2s_linear_layers_which_are_no_modules_of_that_class():
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    language = {"type": "causal", "vocabulary": 400, "config": config}
    recipe = toy("stages.learn.optimiser=muon", model=raw()["model"] | {"language": language})
    made = build_optimiser(build_model(recipe), recipe.stages[1])
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    names = {name for group in made.muon.param_groups for name in group["names"]}
    assert names == {f"language.inner.transformer.h.0.{layer}.weight" for layer in layers}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_group_has_its_peak_times_the_share_of_the_step(kind):
    recipe = toy(
        f"stages.learn.optimiser={kind}", "stages.learn.train.language=0.5", "stages.learn.warmup=0.5"
    )
    model, learn = build_model(recipe), recipe.stages[1]
    made = build_optimiser(model, learn)
    assert all(group["lr"] == group["peak"] for group in made.param_groups)
    set_rate(made, learn, 2)
    for group in made.param_groups:
        assert group["lr"] == pytest.approx((0.5 if group["slot"] == "language" else 2e-3) * 0.5)


def test_gradients_are_dropped_of_all_parameters_or_set_to_zero():
    recipe = toy("stages.learn.optimiser=muon")
    model = build_model(recipe)
    made = build_optimiser(model, recipe.stages[1])
    every = [p for group in made.param_groups for p in group["params"]]
    for options, expected in (({}, None), ({"set_to_none": False}, 0.0)):
        for parameter in every:
            parameter.grad = torch.ones_like(parameter)
        made.zero_grad(**options)
        for parameter in every:
            found = parameter.grad if parameter.grad is None else float(parameter.grad.abs().max())
            assert found == expected


class Teaching(Objective):
    """One weight of its own, and a teacher that does not learn."""

    name, names = "teaching", ("a",)

    def __init__(self, *, own: bool = True):
        super().__init__()
        if own:
            self.own = torch.nn.Parameter(torch.ones(2, 2))
        self.teacher = torch.nn.Linear(2, 2).requires_grad_(False)

    def losses(self, model, batch):
        return {}


def test_an_objective_is_trained_without_its_teachers():
    model, objective = build_model(toy()), Teaching()
    learn = stage(steps=4).model_copy(update={"train": {"connector": 1e-3, "objective": 2e-3}})
    made = build_optimiser(model, learn, objective)
    own = [group for group in made.param_groups if group["slot"] == "objective"]
    assert [group["names"] for group in own] == [["objective.own"]]
    assert own[0]["peak"] == 2e-3
    row = table(model, learn, objective)[-1]
    assert (row.slot, row.part, row.parameters, row.trained, row.rate) == (
        "objective",
        "teaching",
        10,
        4,
        2e-3,
    )
    without = learn.model_copy(update={"train": {"connector": 1e-3}})
    with pytest.raises(RecipeError, match="does not train the weights of objective 'teaching'"):
        build_optimiser(model, without, objective)
    build_optimiser(model, without, Teaching(own=False))


def test_rates_rise_over_the_warm_up_to_the_whole_and_fall_over_the_rest():
    made = stage(steps=200, warmup=0.05, schedule="linear")
    assert [rate(made, step) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]
    assert rate(made, 105) == pytest.approx(0.5)
    assert rate(made, 199) == pytest.approx(1 / 190)
    assert rate(stage(steps=3, warmup=1.0, schedule="cosine"), 2) == 1.0
    assert rate(stage(steps=3, warmup=1.0, schedule="linear"), 3) == 1.0
    assert rate(stage(steps=100, warmup=0.0, schedule="cosine"), 50) == pytest.approx(0.5)


def test_slots_that_are_frozen_have_no_rate():
    recipe = toy()
    model = build_model(recipe)
    model.train_only(recipe.stages[1].train)
    rows = {row.slot: row for row in table(model, recipe.stages[1])}
    assert (rows["encoder"].rate, rows["views"].parameters, rows["views"].trained) == (0.0, 0, 0)
    assert {rows[slot].part for slot in ("encoder", "language")} == {"vit", "causal"}


def test_on_what_has_fused_kernels_they_are_used():
    assert [_can_fuse(torch.device(kind)) for kind in ("cpu", "cuda", "mps")] == [True, True, False]
    model = build_model(toy())
    made = build_optimiser(model, toy().stages[1])
    assert made.param_groups[0]["fused"] is True
    assert made.param_groups[0]["betas"] == toy().stages[1].betas
