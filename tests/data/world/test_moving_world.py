"""Moving scenes: every frame is where its truth says, and the same clip comes again."""

import numpy as np
import pytest

from chiasm import parts
from chiasm.data import Message
from chiasm.data.clip import Clip, clip_pixels, pixels
from chiasm.data.world.moving import HEADINGS, bounced
from chiasm.errors import DataError
from chiasm.views import Size


def world(**options):
    return parts.build("data", {"type": "moving_world", "clips": 40, **options})


def shown(sample):
    (clip,) = sample.messages[-1].content
    return clip


def test_a_sample_asks_in_words_and_answers_with_a_clip():
    (sample,) = world(frames=5, canvas=48)[3]
    asked = sample.messages[0]
    assert asked == Message("user", asked.content)
    assert asked.content[0].startswith("Film: ")
    assert all(name in asked.content[0] for name in sample.truth["emoji"])
    clip = shown(sample)
    assert isinstance(clip, Clip)
    assert [frame.size for frame in clip.frames()] == [(48, 48)] * clip.length == [(48, 48)] * 5


def test_what_differs_from_the_ground_lies_within_the_boxes():
    for index in range(10):
        (sample,) = world(objects=[1, 1], canvas=64)[index]
        clip = shown(sample)
        ground = np.array(clip.tint)
        for frame, ((left, top, right, bottom),) in zip(clip.frames(), sample.truth["boxes"], strict=True):
            differs = (np.asarray(frame) != ground).any(-1)
            assert differs[top:bottom, left:right].sum() == differs.sum() > 20
            assert 0 <= left < right <= 64 >= bottom > top >= 0


def test_things_move_as_the_words_say_until_they_turn_back():
    (sample,) = world(objects=[1, 1], speed=[0.05, 0.05], canvas=200, frames=2, sides=[0.1, 0.1], seed=1)[0]
    first, second = (boxes[0] for boxes in sample.truth["boxes"])
    down, right = HEADINGS[sample.truth["headings"][0]]
    assert (second[1] - first[1], second[0] - first[0]) == (10 * down, 10 * right)
    assert [bounced(place, 10) for place in (0, 4, 10, 13, 20, 24, -3)] == [0, 4, 10, 7, 0, 4, 3]
    assert bounced(7, 0) == 0


def test_the_same_seed_is_the_same_clip():
    one, other = (shown(world()[7][0]) for _ in range(2))
    assert one.key == other.key
    assert one.frames()[3].tobytes() == other.frames()[3].tobytes()
    assert one.key != shown(world(seed=1)[7][0]).key
    assert world().fingerprint == world().fingerprint != world(frames=9).fingerprint


def test_a_clip_is_its_first_frame_to_who_takes_only_pictures():
    clip = shown(world()[0][0])
    size = Size(32, 32)
    frames = clip_pixels(clip, size)
    assert frames.shape == (8, 3, 32, 32)
    assert (frames[0] == pixels(clip, size)).all()


def test_held_out_pairs_and_emoji_are_held_out():
    def pairs(split):
        source = world(split=split, objects=[2, 2], emoji=12, clips=200)
        return {tuple(sorted(source[i][0].truth["emoji"])) for i in range(200)}

    assert not pairs("train") & pairs("combination")
    assert not {e for pair in pairs("train") for e in pair} & {e for pair in pairs("emoji") for e in pair}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objects": [2, 1]}, "objects is"),
        ({"sides": [0.5, 1.5]}, "sides is"),
        ({"split": "style"}, "split is 'style'"),
        ({"split": "combination"}, "two objects or more"),
        ({"tints": 9}, "from 1 to 8"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    with pytest.raises(DataError, match=said):
        world(**options)
