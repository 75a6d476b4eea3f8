"""The encoder judged alone: linear probe and nearest neighbours."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import ChiasmError
from chiasm.evaluation.evaluate import examine, summary
from chiasm.evaluation.subject import ModelSubject
from chiasm.evaluation.tasks import linear_probe, nearest_neighbours
from chiasm.model import Model
from chiasm.recipe import load_recipe
from tiny_recipe import TINY

NAMES = {
    "type": "world",
    "scenes": 60,
    "emoji": 8,
    "grid": 2,
    "objects": [1, 2],
    "canvas": 32,
    "tasks": {"name": 1},
}
VIT = {"type": "vit", "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "size": 32}


@pytest.mark.parametrize("task", [linear_probe, nearest_neighbours])
def test_what_is_apart_is_told_apart_and_noise_is_not(task):
    torch.manual_seed(0)
    classes = torch.arange(200) % 4
    centers = 5 * torch.randn(4, 10)
    learnt, asked = (centers[classes] + torch.randn(200, 10) for _ in range(2))
    assert (task.classify(learnt, classes, asked, 4) == classes).float().mean() > 0.95
    noise = torch.randn(200, 10)
    right = (task.classify(learnt, classes, noise, 4) == classes).float().mean()
    assert 0.1 < right < 0.45


def examined(recipe):
    recipe = load_recipe(recipe)
    model = Model(recipe.model, texts=["a cat"])
    source = parts.build("data", recipe.data["world"])
    only = ["linear_probe", "nearest_neighbours"]
    return examine(ModelSubject(model, recipe.sampling), source, recipe, only=only)[0]


def test_an_encoder_is_scored_beside_itself_untrained():
    recipe = TINY | {"data": TINY["data"] | {"names": NAMES, "others": NAMES | {"split": "style"}}}
    recipe["model"] = TINY["model"] | {"encoder": VIT}
    recipe["evaluation"] = {"data": "held-out", "labelled": ["names", "others"], "labelled_pictures": 50}
    results = examined(recipe)
    for name in ("linear_probe", "nearest_neighbours"):
        told = results["tasks"][name]
        assert told["chance"] == 1 / told["classes"]
        assert told["n"] == told["learnt_from"] == 50
        # This encoder is untrained too: its score is within the control's interval.
        assert told["untrained_ci"][0] - 0.1 <= told["score"] <= told["untrained_ci"][1] + 0.1


def test_held_out_pictures_of_names_that_are_not_learnt_are_left_out_and_counted():
    others = NAMES | {"split": "style", "emoji": 16}
    recipe = TINY | {"data": TINY["data"] | {"names": NAMES, "others": others}}
    recipe["model"] = TINY["model"] | {"encoder": VIT}
    recipe["evaluation"] = {"data": "held-out", "labelled": ["names", "others"], "labelled_pictures": 50}

    def names(options):
        source = parts.build("data", options)
        return [sample.truth["labels"][0] for i in range(len(source)) for sample in source[i]][:50]

    unlearnt = [name for name in names(others) if name not in names(NAMES)]
    assert 0 < len(unlearnt) < 50
    for task, scores in examined(recipe)["tasks"].items():
        assert (scores["unlearnt"], scores["n"]) == (len(unlearnt), 50 - len(unlearnt))
        line = summary(task, scores)
        assert f"({len(unlearnt)} held-out images are left out" in line
        assert sorted(unlearnt)[0] in line


def test_samples_that_show_nothing_with_one_name_are_counted():
    mixed = NAMES | {"tasks": {"name": 1, "draw": 1}}
    recipe = TINY | {"data": TINY["data"] | {"names": mixed, "others": NAMES | {"split": "style"}}}
    recipe["model"] = TINY["model"] | {"encoder": VIT}
    recipe["evaluation"] = {"data": "held-out", "labelled": ["names", "others"], "labelled_pictures": 30}
    source, looked, names = parts.build("data", mixed), 0, 0
    for index in range(len(source)):
        for sample in source[index]:
            looked += 1
            names += "labels" in sample.truth
        if names >= 30:
            break
    assert 0 < names < looked
    for task, scores in examined(recipe)["tasks"].items():
        assert scores["unlabelled"] == looked - names
        assert f"{looked - names} samples show no single image with one name" in summary(task, scores)


def test_without_labelled_pictures_it_is_left_out():
    with pytest.raises(ChiasmError, match="linear_probe: the recipe names no labelled images"):
        examined(TINY)


def test_the_world_names_single_emoji():
    world = parts.build("data", NAMES | {"split": "style"})
    sample = world[0][0]
    picture = sample.messages[0].content[0]
    (thing,) = picture.scene.things
    assert sample.truth["labels"] == (thing.emoji.english,)
    assert thing.emoji.english in sample.messages[1].content[0]
    assert picture.scene.style in world.styles
    left, top, right, bottom = picture.scene.boxes(32)[0]
    assert min(right - left, bottom - top) >= 0.65 * 32
