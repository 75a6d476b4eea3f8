"""Regions as prompts: what a box, a point or a stroke is on is the answer, and its mask."""

import re

import numpy as np
import pytest

from chiasm.data.world import World
from chiasm.data.world.regions import KINDS, StrokePicture
from chiasm.data.world.render import masks, render

TASKS = {"region": 2, "segment_region": 2}


def samples(**options):
    world = World(scenes=30, emoji=12, grid=2, objects=(2, 3), canvas=64, tasks=TASKS, **options)
    return [sample for index in range(30) for sample in world[index]]


def numbers(text):
    return [float(number) for number in re.findall(r"\d\.\d\d", text)]


def things_at(sample):
    """Places in the scene of the things that the prompt is on, by numbers and pixels alone."""
    image, text = sample.messages[0].content
    scene = sample.truth["scene"]
    if sample.truth["type"] == "stroke":
        changed = (np.asarray(image.open()) != np.asarray(render(scene, 64))).any(-1)
        return [i for i, mask in enumerate(masks(scene, 64)) if (mask & changed).any()]
    if sample.truth["type"] == "point":
        x, y = (min(63, int(number * 64)) for number in numbers(text))
        return [
            i
            for i, (left, top, right, bottom) in enumerate(scene.boxes(64))
            if left <= x < right and top <= y < bottom
        ]
    box = [number * 64 for number in numbers(text)]
    return [i for i, each in enumerate(scene.boxes(64)) if np.allclose(each, box, atol=0.4)]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_prompt_is_on_the_thing_that_is_the_answer(language):
    kinds = set()
    for sample in samples(language=language, phrasings="train"):
        kinds.add(sample.truth["type"])
        (thing,) = things_at(sample)
        emoji = sample.truth["scene"].things[thing].emoji
        if sample.truth["task"] == "region":
            assert sample.messages[-1].content == (emoji.name(language),)
        else:
            assert sample.masks.things == (thing,)
            assert sample.masks.count == 1
    assert kinds == set(KINDS)


def test_a_point_lies_on_the_things_own_pixels():
    for sample in samples():
        if sample.truth["type"] == "point" and sample.masks is not None:
            x, y = (min(63, int(number * 64)) for number in numbers(sample.messages[0].content[1]))
            assert sample.masks.open()[0, y - 1 : y + 2, x - 1 : x + 2].any()  # numbers are rounded


def test_a_stroke_is_red_within_its_thing_and_changes_nothing_else():
    strokes = [
        image for sample in samples() if isinstance(image := sample.messages[0].content[0], StrokePicture)
    ]
    assert strokes
    for image in strokes:
        plain, painted = np.asarray(render(image.scene, 64)), np.asarray(image.open())
        stroke = image.stroke()
        assert stroke.any()
        assert not (stroke & ~masks(image.scene, 64)[image.thing]).any()
        assert (plain[~stroke] == painted[~stroke]).all()
    assert len({image.key for image in strokes}) == len(strokes)


def test_the_same_thing_is_asked_once_for_a_task():
    world = World(scenes=10, emoji=12, grid=2, objects=(2, 3), canvas=64, tasks={"segment_region": 9})
    for index in range(10):
        asked = [sample.masks.things for sample in world[index]]
        assert sorted(asked) == [(i,) for i in range(len(world.scene(index).things))]
