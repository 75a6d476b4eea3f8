"""How the world words its questions: in many ways, some of which training never shows, all meaning the same."""

import string
from collections import Counter

import pytest

from chiasm.data.world import World, emoji_set, find_emoji
from chiasm.data.world.chinese_wordings import WORDINGS as CHINESE
from chiasm.data.world.dice import Dice
from chiasm.data.world.english_wordings import WORDINGS as ENGLISH
from chiasm.data.world.phrases import phrases
from chiasm.data.world.questions import QUESTIONS, UNANSWERABLE
from chiasm.data.world.wordings import as_typed

ASKED = dict.fromkeys(QUESTIONS, 1)


@pytest.mark.parametrize("wordings", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_every_kind_has_eight_wordings_and_others_that_are_held_out(wordings):
    assert set(ENGLISH) == set(CHINESE) >= {*QUESTIONS, "describe", "draw"}
    for wording in wordings.values():
        known, held_out = ({plain(text) for text in texts} for texts in (wording.train, wording.held_out))
        assert len(known) == len(wording.train) >= 8
        assert len(held_out) == len(wording.held_out) >= 3
        assert not known & held_out


@pytest.mark.parametrize("wordings", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_the_wordings_of_a_kind_speak_of_the_same_things(wordings):
    for wording in wordings.values():
        assert len({things(text) for text in (*wording.train, *wording.held_out)}) == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_wording_of_one_kind_is_one_of_another(language):
    """Of the questions about a picture, so that the words tell what is asked."""
    kinds = [*QUESTIONS, "describe"]
    say = phrases(language)
    names = {"one": find_emoji("dog").name(language), "other": find_emoji("cat").name(language), "cell": "x"}
    texts = Counter(
        text.format(**say.forms(names["one"], names["other"]), cell="x", caption="")
        for kind in kinds
        for text in (*say.wordings[kind].train, *say.wordings[kind].held_out)
    )
    assert texts.most_common(1)[0][1] == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_phrasings_change_the_words_and_nothing_else(language):
    worlds = {
        kind: World(phrasings=kind, language=language, tasks=ASKED) for kind in ("plain", "train", "held_out")
    }
    texts = {}
    for kind, world in worlds.items():
        samples = [sample for index in range(40) for sample in world[index]]
        texts[kind] = [sample.messages[0].content[1] for sample in samples]
        answers = [(s.truth["type"], s.truth["answer"], s.messages[0].content[0].key) for s in samples]
        assert answers == answers_of(worlds["plain"], 40)
    held_out = set(map(plain, texts["held_out"]))
    assert not held_out & set(map(plain, texts["train"]))
    assert not held_out & set(map(plain, texts["plain"]))


def test_both_asks_every_question_in_a_known_and_in_a_held_out_wording():
    samples = World(phrasings="both", tasks={**ASKED, "draw": 1})[3]
    asked = {kind: [s for s in samples if s.truth["phrasings"] == kind] for kind in ("train", "held_out")}
    questions = [(s.truth["task"], s.truth["answer"]) for s in asked["train"] if s.truth["task"] != "draw"]
    assert questions == [(s.truth["task"], s.truth["answer"]) for s in asked["held_out"]]
    assert len(questions) == len(asked["train"]) - 1 > 3
    assert len({s.name for s in samples}) == len(samples)


def test_sentences_come_as_people_type_them():
    typed = Counter(as_typed("Where is the dog?", Dice("typed", i)) for i in range(2000))
    assert set(typed) == {"Where is the dog?", "Where is the dog", "where is the dog?", "where is the dog"}
    assert typed["Where is the dog?"] > 1000
    assert min(typed.values()) > 40


@pytest.mark.parametrize(
    ("name", "one", "many"),
    [
        ("dog", "a dog", "dogs"),
        ("apple", "an apple", "apples"),
        ("butterfly", "a butterfly", "butterflies"),
        ("monkey", "a monkey", "monkeys"),
        ("bus", "a bus", "buses"),
        ("fox", "a fox", "foxes"),
        ("cherry", "a cherry", "cherries"),
        ("fish", "a fish", "fish"),
        ("mouse", "a mouse", "mice"),
        ("tomato", "a tomato", "tomatoes"),
        ("potato", "a potato", "potatoes"),
        ("volcano", "a volcano", "volcanoes"),
        ("snowman", "a snowman", "snowmen"),
        ("balloon", "a balloon", "balloons"),
        ("scissors", "scissors", "scissors"),
        ("umbrella", "an umbrella", "umbrellas"),
        ("red hair", "a red hair", "copies of red hair"),
    ],
)
def test_names_in_the_singular_and_plural(name, one, many):
    forms = phrases("en").forms(name, "")
    assert (forms["a_one"], forms["ones"]) == (one, many)


def test_plurals_of_the_curated_names_are_different():
    assert len({phrases("en").forms(e.english, "")["ones"] for e in emoji_set(168)}) == 168


@pytest.mark.parametrize("language", ["en", "zh"])
def test_questions_about_what_is_not_there_are_answered_so(language):
    world = World(language=language, phrasings="plain", unanswerable=0.5, tasks=ASKED)
    seen, asked = Counter(), Counter()
    for sample in (s for i in range(400) for s in world[i]):
        truth, say = sample.truth, world.say
        asked[truth["task"]] += 1
        present = {say.name(emoji) for emoji in truth["scene"].counts}
        empty = {say.cell(cell, world.grid) for cell in truth["scene"].free}
        if truth["type"] != UNANSWERABLE:
            assert truth["answer"] not in (say.nowhere, say.nothing)
            continue
        seen[truth["task"]] += 1
        if truth["task"] == "what":
            assert truth["answer"] == say.nothing
            assert truth["question"] in {say.ask("what", cell=cell) for cell in empty}
        else:
            assert truth["answer"] == say.nowhere
            possible = {say.ask("where", one=name) for name in present}
            possible |= {say.ask("relation", one=a, other=b) for a in present for b in present}
            assert truth["question"] not in possible
    assert set(seen) == {"what", "where", "relation"}
    assert all(0.4 < count / asked[task] < 0.6 for task, count in seen.items()), seen


def test_without_unanswerable_questions_all_have_an_answer():
    assert all(
        s.truth["type"] != UNANSWERABLE for i in range(200) for s in World(unanswerable=0.0, tasks=ASKED)[i]
    )


def test_strangers_are_named_and_never_shown_and_some_not_even_named_in_training():
    train, held = (World(strangers=120, split=split, tasks=ASKED) for split in ("train", "combination"))
    strangers = set(train.composer.strangers), set(held.composer.strangers)
    assert not strangers[0] & strangers[1]
    assert strangers[0] | strangers[1] == set(emoji_set(168)[48:])
    assert min(map(len, strangers)) >= 16
    for world, own in zip((train, held), strangers):
        names = {
            name for emoji in own for name in (emoji.english, phrases("en").forms(emoji.english, "")["ones"])
        }
        questions = [s.truth["question"] for i in range(300) for s in world[i]]
        assert any(set(question.rstrip("?.").split()) & names for question in questions)
        assert not {emoji for i in range(300) for emoji in world.scene(i).counts} & set(own)


def answers_of(world, count):
    samples = [sample for index in range(count) for sample in world[index]]
    return [(s.truth["type"], s.truth["answer"], s.messages[0].content[0].key) for s in samples]


def plain(text):
    return text.rstrip("?.。").lower()


def things(text):
    fields = {
        field.removeprefix("a_").rstrip("s") for _, field, _, _ in string.Formatter().parse(text) if field
    }
    return frozenset(fields)
