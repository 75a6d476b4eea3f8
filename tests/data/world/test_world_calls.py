"""Instructions of the world that are answered by a tool's call."""

from collections import Counter

import pytest

from chiasm.data.calls import parse_call
from chiasm.data.sample import Picture
from chiasm.data.world import World

KINDS = {"image generation": "generation", "image segmentation": "segmentation", "image editing": "editing"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_call_keeps_to_the_schema_and_names_the_box_of_the_thing_that_is_meant(language):
    world, kinds = World(tasks={"call": 1}, language=language, phrasings="plain"), Counter()
    for sample in (each for index in range(150) for each in world[index]):
        user, assistant = (message.content for message in sample.messages)
        words, call = parse_call(assistant[0], (192, 192))
        kind, scene = KINDS[call.module.name], sample.truth["scene"]
        assert (words, kind) == ("", sample.truth["type"])
        kinds[kind] += 1
        assert isinstance(user[0], Picture) == (kind != "generation")
        if kind == "generation":
            assert call.instruction == world.say.caption(scene)
            continue
        (thing,) = [each for each in scene.things if scene.box(each, 192) == call.region]
        name = world.say.name(thing.emoji)
        assert name in user[1]
        assert (call.instruction == name) == (kind == "segmentation")
    assert min(kinds.values()) > 30
