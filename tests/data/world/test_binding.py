"""Lists of things that belong together: the same list in every form, and answers that can be read off it."""

import numpy as np
import pytest

from chiasm.data.sample import Picture
from chiasm.data.world.binding import FILLER, Binding, one_word_emoji
from chiasm.data.world.glyphs import COLOURS, GROUND, SHAPES
from chiasm.errors import DataError


def words_of(sample):
    """The list of a sample in words, without fillers, as triples; and the first question."""
    text = sample.messages[0].content[0]
    *given, colour, shape = text.split()
    given = [word for word in given if word != FILLER]
    return [tuple(given[i : i + 3]) for i in range(0, len(given), 3)], (colour, shape)


def test_the_answer_is_what_the_list_says():
    source = Binding(length=(2, 6), questions=3, lists=50)
    lengths = set()
    for index in range(50):
        (sample,) = source[index]
        triples, key = words_of(sample)
        lengths.add(len(triples))
        items = {(colour, shape): item for colour, shape, item in triples}
        assert len({shape for _, shape, _ in triples}) == len(triples)  # one of each shape
        assert sample.messages[1].content == (f" {items[key]}",)
        for question, answer in zip(sample.messages[2::2], sample.messages[3::2], strict=True):
            assert answer.content == (f" {items[tuple(question.content[0].split())]}",)
    assert lengths == {2, 3, 4, 5, 6}


def test_with_a_conjunction_neither_colour_nor_shape_is_enough():
    source = Binding(length=(6, 6), shapes=3, colours=3, conjunction=True, lists=20)
    for index in range(20):
        triples, _ = words_of(source[index][0])
        assert len({triple[:2] for triple in triples}) == 6
        assert len({shape for _, shape, _ in triples}) <= 3


@pytest.mark.parametrize("form", ["offset", "grid"])
def test_other_forms_in_words_tell_the_same_with_fillers(form):
    plain, other = Binding(lists=30), Binding(form=form, lists=30)
    fillers = []
    for index in range(30):
        (triples, key), (others, other_key) = words_of(plain[index][0]), words_of(other[index][0])
        assert set(triples) == set(others)
        assert key == other_key
        fillers.append(other[index][0].messages[0].content[0].split().count(FILLER))
        if form == "grid":
            assert fillers[-1] == 25 - len(triples)
    assert form == "grid" or max(fillers) > 30 > min(fillers)


def test_an_image_shows_each_thing_in_its_cell_and_its_list_is_that_in_words():
    plain, image = Binding(lists=8), Binding(form="image", lists=8)
    for index in range(8):
        triples, key = words_of(plain[index][0])
        picture, question = image[index][0].messages[0].content
        assert question == f" {' '.join(key)}"
        assert {(g.colour, g.shape, g.emoji.english) for _, g in picture.glyphs} == set(triples)
        pixels = np.asarray(picture.open()).reshape(5, 16, 5, 16, 3).swapaxes(1, 2)
        filled = {i for i in range(25) if (pixels[i // 5, i % 5] != GROUND).any()}
        assert filled == {cell for cell, _ in picture.glyphs}
        for cell, glyph in picture.glyphs:
            colours = pixels[cell // 5, cell % 5].reshape(-1, 3).tolist()
            assert list(COLOURS[glyph.colour]) in colours


def test_controls_show_another_list_or_none():
    plain, shuffled, noise = (Binding(form=form, lists=20) for form in ("words", "shuffled", "noise"))
    other = 0
    for index in range(20):
        triples, _ = words_of(plain[index][0])
        picture = shuffled[index][0].messages[0].content[0]
        other += {(g.colour, g.shape, g.emoji.english) for _, g in picture.glyphs} != set(triples)
        assert isinstance(noise[index][0].messages[0].content[0], Picture)
        assert shuffled[index][0].messages[1] == plain[index][0].messages[1]
    assert other == 20


def test_a_swapped_list_keeps_what_belongs_together_and_names_what_stands_there_now():
    source = Binding(length=(4, 6), lists=20)
    for index in range(20):
        (sample,) = source[index]
        triples, key = words_of(sample)
        truth = sample.truth
        swapped = truth["swapped"].split()
        order = [tuple(swapped[i : i + 3]) for i in range(0, len(swapped) - 2, 3)]
        assert tuple(swapped[-2:]) == key
        assert sorted(order) == sorted(triples)
        assert order[truth["slot"]][2] == truth["in_its_place"] != sample.messages[1].content[0]


def test_every_shape_looks_unlike_every_other():
    from chiasm.data.world.glyphs import Glyph, GlyphPicture

    emoji = one_word_emoji()[0]
    drawn = {
        shape: np.asarray(GlyphPicture([(0, Glyph("red", shape, emoji))], 1, 16).open()).astype(float)
        for shape in SHAPES
    }
    for one in SHAPES:
        for other in SHAPES:
            assert one == other or np.abs(drawn[one] - drawn[other]).mean() > 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": (3, 2)}, "length"),
        ({"length": (2, 17)}, "up to 16"),
        ({"colours": 9}, "colours"),
        ({"items": 5, "length": (2, 6)}, "up to 5"),
        ({"cell": 4}, "cell"),
    ],
)
def test_what_cannot_be_is_a_sentence(options, words):
    with pytest.raises(DataError, match=words):
        Binding(**options)
