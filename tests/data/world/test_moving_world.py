"""Moving scenes: every frame is where its truth says, and the same clip comes again."""

import numpy as np
import pytest

from chiasm import parts
from chiasm.data import Message
from chiasm.data.clip import Clip, clip_pixels, pixels
from chiasm.data.world import moving
from chiasm.data.world.assets import artwork, emoji_set
from chiasm.data.world.composer import TINTS
from chiasm.data.world.moving import HEADINGS, Mover, SceneClip, bounced
from chiasm.errors import DataError, RecipeError
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
    with pytest.raises(RecipeError, match=said):
        world(**options)


EDGES = [  # what is just taken, and what is just not
    ({"emoji": 3}, {"emoji": 2}, "3 or more, for 2 in a clip"),
    ({"split": "emoji", "unseen": 2}, {"split": "emoji", "unseen": 1}, "2 or more"),
    ({"sides": [0.5, 1.0]}, {"sides": [0.5, 1.01]}, "sides is"),
    ({"sides": [0.4, 0.4]}, {"sides": [0.5, 0.4]}, "sides is"),
    ({"sides": [0.01, 0.4]}, {"sides": [0.0, 0.4]}, "sides is"),
    ({"speed": [0.1, 0.1]}, {"speed": [0.2, 0.1]}, "speed is"),
    ({"tints": 1}, {"tints": 0}, "from 1 to 8"),
    ({"tints": 8}, {"tints": 9}, "from 1 to 8"),
    ({"held_out": 0.5}, {"held_out": 0.51}, "above 0 and at most 0.5"),
    ({"held_out": 0.01}, {"held_out": 0.0}, "above 0 and at most 0.5"),
    ({"objects": [2, 2], "split": "combination"}, {"objects": [1, 2], "split": "combination"}, "two objects"),
]


@pytest.mark.parametrize(("taken", "refused", "words"), EDGES)
def test_options_are_taken_up_to_their_limits(taken, refused, words):
    assert len(world(**taken)[0]) == 1
    with pytest.raises(RecipeError, match=words):
        world(**refused)


def test_a_thing_goes_straight_on_and_turns_back_at_the_edges():
    mover = Mover(emoji_set(1)[0], side=10, top=5.0, left=20.0, down=2.0, right=-15.0)
    assert [mover.box(time, 50) for time in range(4)] == [
        (20, 5, 30, 15), (5, 7, 15, 17), (10, 9, 20, 19), (25, 11, 35, 21),
    ]  # fmt: skip


def test_things_are_as_many_as_large_and_as_quick_as_was_asked():
    counts, tints = set(), set()
    source = world(objects=[2, 3], sides=[0.2, 0.3], speed=[0.04, 0.06], canvas=100, tints=2)
    for index in range(40):
        (sample,) = source[index]
        clip = shown(sample)
        counts.add(len(clip.movers))
        tints.add(clip.tint)
        assert len(clip.movers) == len(sample.truth["headings"]) == len(set(sample.truth["emoji"]))
        for mover, heading in zip(clip.movers, sample.truth["headings"], strict=True):
            assert 20 <= mover.side <= 30
            assert 0 <= min(mover.top, mover.left) <= max(mover.top, mover.left) <= 100 - mover.side
            for step, sign in zip((mover.down, mover.right), HEADINGS[heading], strict=True):
                assert np.sign(step) == sign
                assert sign == 0 or 4 <= abs(step) <= 6
    assert counts == {2, 3}
    assert tints == set(TINTS[:2])
    assert len({mover.side for i in range(9) for mover in shown(source[i][0]).movers}) > 3


def test_what_comes_later_covers_what_comes_before():
    one, other = (Mover(emoji, 40, 4.0, 4.0, 0.0, 0.0) for emoji in emoji_set(2))
    both, above = SceneClip((one, other), TINTS[0], 48, 2), SceneClip((other,), TINTS[0], 48, 2)
    opaque = np.asarray(artwork(other.emoji, "plain", 40))[..., 3] == 255
    inside = (slice(4, 44), slice(4, 44))
    for frame, alone in zip([both.open(), *both.frames()], [above.open(), *above.frames()], strict=True):
        assert (np.asarray(frame)[inside][opaque] == np.asarray(alone)[inside][opaque]).all()
        assert (np.asarray(frame) != np.asarray(alone)).any()


def test_the_key_of_a_clip_tells_apart_what_is_seen():
    emoji, other = emoji_set(2)
    values = {"side": 20, "top": 1.0, "left": 2.0, "down": 3.0, "right": 4.0}
    plain = Mover(emoji, **values)
    movers = [plain, Mover(other, **values), *(Mover(emoji, **values | {name: 9}) for name in values)]
    clips = [
        *(SceneClip((mover,), TINTS[0], 48, 2) for mover in movers),
        SceneClip((plain,), TINTS[1], 48, 2),
        SceneClip((plain,), TINTS[0], 49, 2),
        SceneClip((plain,), TINTS[0], 48, 3),
        SceneClip((plain, plain), TINTS[0], 48, 2),
    ]
    assert len({clip.key for clip in clips}) == len(clips)
    assert SceneClip((plain,), TINTS[0], 48, 2).key == clips[0].key


def test_clips_end_where_the_world_ends_and_are_named():
    source = world(clips=3)
    assert len(source) == 3
    assert source[2][0].name == "clip 2 of moving_world(train)"
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"clips 0 to 2; clip {index}"):
            source[index]


def test_a_cast_that_is_not_to_be_found_is_given_up_with_a_sentence(monkeypatch):
    monkeypatch.setattr(moving, "MOST_TOSSES", 50)
    monkeypatch.setattr(moving, "is_held_out", lambda *pair: False)
    assert world(objects=[2, 2])[0]
    with pytest.raises(DataError, match="2 of 32 emoji with a held-out pair are not to be found; take more"):
        world(objects=[2, 2], split="combination")[0]
    monkeypatch.setattr(moving, "is_held_out", lambda *pair: True)
    assert world(objects=[2, 2], split="combination")[0]
    assert world(objects=[2, 2], split="emoji")[0]
    with pytest.raises(DataError, match="2 of 32 emoji without held-out pairs"):
        world(objects=[2, 2])[0]
