"""What makes arms take the same: numbers by hand, and counts of a real recipe against what its training reports."""

from copy import deepcopy

import pytest

from chiasm.errors import RecipeError
from chiasm.recipe import load_recipe
from chiasm.studies.budget import ArmCost, StageCost, matched_steps, matched_width
from chiasm.studies.plan import Width
from chiasm.studies.work import cost_of


def recipe(tiny, **steps):
    raw = deepcopy(tiny)
    (stage,) = raw["stages"][-1:]
    raw["stages"] = [{**stage, "name": name, "steps": count} for name, count in steps.items()]
    return load_recipe(raw)


def cost(**stages):
    return ArmCost(10, {name: StageCost(*numbers) for name, numbers in stages.items()})


def test_samples_are_matched_stage_by_stage(tiny):
    base, arm = recipe(tiny, align=10, learn=40), recipe(tiny, align=10, learn=40)
    steps = matched_steps(
        "samples", arm, cost(align=(4, 9, 9), learn=(2, 9, 9)), base, cost(align=(4, 1, 1), learn=(3, 1, 1))
    )
    assert steps == {"align": 10, "learn": 60}  # 40 steps of 3 samples are 60 of 2


def test_flops_are_matched_in_all_by_the_last_stage(tiny):
    base, arm = recipe(tiny, learn=40), recipe(tiny, codes=10, learn=40)
    steps = matched_steps("flops", arm, cost(codes=(1, 1, 8), learn=(1, 1, 20)), base, cost(learn=(1, 1, 10)))
    assert steps == {"learn": 16}  # 400 in all, of which the codes take 80
    with pytest.raises(RecipeError, match=r"before 'learn' take more FLOPs than the whole baseline"):
        matched_steps("flops", arm, cost(codes=(1, 1, 60), learn=(1, 1, 20)), base, cost(learn=(1, 1, 10)))


def test_a_width_is_found_that_gives_as_many_parameters():
    assert matched_width(Width(key="width", step=8), 100 * 64 + 7, lambda width: 100 * width) == 64
    with pytest.raises(RecipeError, match=r"nearest are 6,400 with 64"):
        matched_width(Width(key="width", step=64), 7000, lambda width: 100 * width)


def test_what_training_takes_is_known_before_it(tiny):
    known = cost_of(recipe(tiny, learn=2))
    stage = known.stages["learn"]
    rows, length = tiny["stages"][-1]["rows"], tiny["stages"][-1]["length"]
    assert rows <= stage.samples <= stage.tokens <= rows * length
    # every parameter of the language model takes part in a multiply-add at each position, thrice with its gradients
    assert stage.flops > 6 * 0.5 * known.parameters * stage.tokens / 2
