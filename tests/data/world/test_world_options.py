"""The options of both worlds: the last value that is taken, and the first that is refused by name."""

import pytest

from chiasm import parts
from chiasm.data.world import MovingWorld, World, emoji_set
from chiasm.errors import ChiasmError, DataError

# options that hold the last value taken, the same with the first one refused, what the refusal names
LIMITS = [
    ({"objects": (1, 9)}, {"objects": (0, 9)}, "objects is"),
    ({"objects": (1, 9)}, {"objects": (1, 10)}, "objects is"),
    ({"objects": (3, 3)}, {"objects": (4, 3)}, "objects is"),
    ({"objects": (1, 4), "grid": 2}, {"objects": (1, 5), "grid": 2}, "1 to 4, the cells"),
    ({"objects": (2, 3), "split": "combination"}, {"objects": (1, 3), "split": "combination"}, "two objects"),
    ({"emoji": 9}, {"emoji": 8}, "emoji is 8; at least 9: 5 in a scene and 4 to ask about"),
    ({"unseen": 9, "split": "emoji"}, {"unseen": 8, "split": "emoji"}, "unseen is 8; at least 9"),
    ({"canvas": 24}, {"canvas": 23}, "canvas is 23"),
    ({"drawn_canvas": 24}, {"drawn_canvas": 23}, "drawn_canvas 23"),
    ({"canvas": 32, "drawn_canvas": 32, "grid": 4}, {"canvas": 31, "drawn_canvas": 32, "grid": 4}, "canvas is 31"),
    ({"strangers": 16}, {"strangers": 15}, "strangers is 15; 0, or 16 or more"),
    ({"strangers": 1914 - 48}, {"strangers": 1914 - 47}, "strangers is 1867"),
    ({"jitter": 0.0}, {"jitter": -0.01}, "jitter is -0.01"),
    ({"jitter": 1.0}, {"jitter": 1.01}, "jitter is 1.01"),
    ({"drawn_jitter": 0.0}, {"drawn_jitter": -0.01}, "drawn_jitter is -0.01"),
    ({"drawn_jitter": 1.0}, {"drawn_jitter": 1.01}, "drawn_jitter is 1.01"),
    ({"unanswerable": 0.0}, {"unanswerable": -0.01}, "unanswerable is -0.01"),
    ({"unanswerable": 1.0}, {"unanswerable": 1.01}, "unanswerable is 1.01"),
    ({"untrue": 1.0}, {"untrue": 1.01}, "untrue is 1.01"),
    ({"tints": 1}, {"tints": 0}, "tints is 0; from 1 to 8"),
    ({"tints": 8}, {"tints": 9}, "tints is 9"),
    ({"held_out": 1e-6}, {"held_out": 0.0}, "held_out is 0.0"),
    ({"held_out": 0.5}, {"held_out": 0.51}, "held_out is 0.51"),
    ({"turns": 1}, {"turns": 0}, "turns is 0; at least 1"),
    ({"scenes": 1}, {"scenes": 0}, "scenes is 0; at least 1"),
    ({"tasks": {"count": 1}}, {"tasks": {"count": 2}}, "tasks.count is 2"),
    ({"styles": ("line",), "unseen_styles": ("flat",)}, {"styles": ("lin",)}, "no style 'lin'"),
    ({"unseen_styles": ("line",)}, {"unseen_styles": ("lin",)}, "no style 'lin'"),
    ({"styles": ("plain",), "unseen_styles": ()}, {"unseen_styles": ("plain",)}, "'plain'. is in styles and in"),
]  # fmt: skip

MOVING_LIMITS = [
    ({"objects": (2, 2)}, {"objects": (3, 2)}, "objects is .3, 2.; it must be two rising"),
    ({"emoji": 3}, {"emoji": 2}, "emoji is 2; it must be 3 or more, for 2 in a clip"),
    ({"unseen": 2, "split": "emoji"}, {"unseen": 1, "split": "emoji"}, "unseen is 1; it must be 2 or more"),
    ({"sides": (0.4, 0.4)}, {"sides": (0.5, 0.4)}, "sides is"),
    ({"sides": (0.01, 1.0)}, {"sides": (0.0, 1.0)}, "sides is"),
    ({"sides": (0.5, 1.0)}, {"sides": (0.5, 1.01)}, "sides is"),
    ({"speed": (0.1, 0.1)}, {"speed": (0.2, 0.1)}, "speed is"),
    ({"tints": 1}, {"tints": 0}, "tints is 0; it must be from 1 to 8"),
    ({"tints": 8}, {"tints": 9}, "tints is 9"),
    ({"held_out": 1e-6}, {"held_out": 0.0}, "held_out is 0.0"),
    ({"held_out": 0.5}, {"held_out": 0.51}, "held_out is 0.51"),
    (
        {"objects": (2, 2), "split": "combination"},
        {"objects": (1, 2), "split": "combination"},
        "split is 'combination'",
    ),
    ({"split": "emoji"}, {"split": "style"}, "split is 'style'"),
]


@pytest.mark.parametrize(("taken", "refused", "named"), LIMITS)
def test_the_world_takes_options_up_to_their_limits(taken, refused, named):
    World(**taken)
    with pytest.raises(DataError, match=f"^world: .*{named}"):
        World(**refused)


@pytest.mark.parametrize(("taken", "refused", "named"), MOVING_LIMITS)
def test_the_moving_world_takes_options_up_to_their_limits(taken, refused, named):
    MovingWorld(**taken)
    with pytest.raises(DataError, match=f"^moving_world: {named}"):
        MovingWorld(**refused)


@pytest.mark.parametrize(
    ("option", "most"),
    [
        *dict.fromkeys(("emoji", "unseen", "scenes", "strangers", "turns"), 10**9).items(),
        *dict.fromkeys(("canvas", "drawn_canvas"), 4096).items(),
        ("grid", 64),
    ],
)
def test_sizes_beyond_any_use_are_refused_before_anything_is_built(option, most):
    options = parts.options(World)
    options[option].adapter.validate_python(most)
    with pytest.raises(ChiasmError, match=rf"world\.{option} is {most + 1}"):
        parts.check("data", {"type": "world", option: most + 1}, "world")


def test_a_task_gives_at_most_ten_thousand_documents_of_a_scene():
    parts.check("data", {"type": "world", "tasks": {"draw": 10_000}}, "world")
    with pytest.raises(ChiasmError, match="draw asks for 10,001 documents of a scene; 0 to 10,000"):
        parts.check("data", {"type": "world", "tasks": {"draw": 10_001}}, "world")


def test_a_world_has_thousands_of_scenes_unless_it_is_told_otherwise():
    assert (len(World()), len(MovingWorld())) == (8000, 4000)


def test_samples_and_sources_are_named_by_32_hexadecimal_digits():
    world, moving = World(tasks={"read": 1, "draw": 1}), MovingWorld()
    pictures = [p for sample in (*world[0], *moving[0]) for m in sample.messages for p in m.content]
    keys = [picture.key for picture in pictures if not isinstance(picture, str)]
    assert {len(name) for name in (world.fingerprint, moving.fingerprint, *keys)} == {32}
    assert len({type(picture) for picture in pictures}) == 4  # words, a scene, words to read, a clip


def test_a_task_asked_for_no_time_gives_nothing():
    assert {sample.truth["task"] for sample in World(tasks={"where": 0, "draw": 1})[0]} == {"draw"}


@pytest.mark.parametrize("world", [World(scenes=3), MovingWorld(clips=3)])
def test_indices_end_where_the_world_ends(world):
    assert len(world) == 3
    assert world[0]
    assert world[2]
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"0 to 2; .* {index} was asked for"):
            world[index]


def test_the_emoji_of_a_set_are_counted_from_one():
    assert len(emoji_set(1)) == 1
    assert len(emoji_set(1914)) == len(emoji_set()) == 1914
    for count in (0, 1915):
        with pytest.raises(DataError, match=f"1 to 1914 emoji; {count} were asked for"):
            emoji_set(count)


def test_a_cast_that_is_not_to_be_found_is_given_up_with_a_sentence():
    """All of a few emoji together: hardly ever without a held-out pair, and with one only where there is one."""
    with pytest.raises(DataError, match="5 of 6 emoji without held-out pairs are not to be found; take more"):
        MovingWorld(emoji=6, objects=(5, 5), held_out=0.5)[0]
    with pytest.raises(DataError, match="2 of 3 emoji with a held-out pair are not to be found"):
        MovingWorld(emoji=3, objects=(2, 2), held_out=1e-9, split="combination")[0]
