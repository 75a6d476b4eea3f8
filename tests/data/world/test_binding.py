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


EDGES = [  # what is just taken, and what is just not
    ({"cell": 8}, {"cell": 7}, "from 8 to 256 pixels"),
    ({"cell": 256}, {"cell": 257}, "from 8 to 256 pixels"),
    ({"grid": 64}, {"grid": 65}, "at most 64"),
    ({"grid": 2, "length": (2, 4)}, {"grid": 2, "length": (2, 5)}, "up to 4"),
    ({"colours": 2}, {"colours": 1}, "from 2 to 8"),
    ({"shapes": 2, "length": (2, 2)}, {"shapes": 1, "length": (1, 1)}, "from 2 to 16"),
    ({"shapes": 16, "length": (2, 16)}, {"shapes": 17}, "from 2 to 16"),
    ({"items": len(one_word_emoji())}, {"items": len(one_word_emoji()) + 1}, "at most"),
    (
        {"colours": 2, "shapes": 2, "conjunction": True, "length": (4, 4)},
        {"colours": 2, "shapes": 2, "conjunction": True, "length": (4, 5)},
        "up to 4",
    ),
]


@pytest.mark.parametrize(("taken", "refused", "words"), EDGES)
def test_options_are_taken_up_to_their_limits(taken, refused, words):
    assert len(Binding(**taken)[0]) == 1
    with pytest.raises(DataError, match=words):
        Binding(**refused)


def test_a_list_is_asked_about_as_often_as_is_wanted_and_about_each_thing_once():
    lengths = set()
    for questions, index in [(1, 0), (3, 1), *((9, i) for i in range(2, 30))]:
        (sample,) = Binding(questions=questions)[index]
        triples, _ = words_of(sample)
        lengths.add(len(triples))
        asked = [message.content[-1].split()[-2:] for message in sample.messages[::2]]
        assert len({tuple(key) for key in asked}) == len(asked) == min(questions, len(triples))
        assert [message.role for message in sample.messages] == ["user", "assistant"] * len(asked)
        assert (sample.truth["length"], sample.truth["type"]) == (len(triples), f"length {len(triples)}")
        assert ("swapped" in sample.truth) == (len(asked) == 1)
        assert sample.name == f"list {index} of binding(words)"
    assert lengths == {2, 3, 4, 5, 6}
    assert "swapped" not in Binding(length=(1, 1))[0][0].truth  # with nothing


def test_a_source_of_lists_has_an_end_and_other_lists_for_another_seed():
    source = Binding(lists=3)
    assert (len(source), len(Binding())) == (3, 20000)
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"lists 0 to 2; list {index}"):
            source[index]
    assert source[2][0].messages == Binding(lists=3)[2][0].messages != Binding(seed=1)[2][0].messages
    assert source.fingerprint == Binding(lists=3).fingerprint != Binding(lists=3, seed=1).fingerprint


def test_noise_is_as_large_as_the_image_would_be_and_another_for_each_list():
    source = Binding(form="noise", grid=3, cell=10)
    pictures = [source[i][0].messages[0].content[0] for i in range(2)]
    pixels = [np.asarray(picture.open()) for picture in pictures]
    assert [each.shape for each in pixels] == [(30, 30, 3)] * 2
    assert pictures[0].key != pictures[1].key
    assert (pixels[0] != pixels[1]).any()
    assert pixels[0].min() == 0
    assert pixels[0].max() == 255


UPRIGHT = {"circle", "square", "triangle", "diamond", "star", "cross", "hexagon", "bar", "pillar", "funnel"}
LEVEL = {"circle", "square", "diamond", "cross", "hexagon", "arrow", "bar", "pillar", "flag"}
MIRRORS = {  # shapes that are the same when x and y are changed so
    "left and right": (UPRIGHT | {"kite"}, lambda x, y: (1 - x, y)),
    "up and down": (LEVEL, lambda x, y: (x, 1 - y)),
    "one diagonal": ({"circle", "square", "diamond", "cross", "wedge", "stairs"}, lambda x, y: (y, x)),
    "the other": ({"circle", "square", "diamond", "cross", "corner"}, lambda x, y: (1 - y, 1 - x)),
}


def corners(points):
    return {(round(x, 6) + 0.0, round(y, 6) + 0.0) for x, y in points}


@pytest.mark.parametrize(("shapes", "mirrored"), MIRRORS.values(), ids=MIRRORS)
def test_shapes_are_as_even_as_their_names_say(shapes, mirrored):
    for shape in shapes:
        assert corners(mirrored(*corner) for corner in SHAPES[shape]) == corners(SHAPES[shape]), shape


def test_shapes_fill_their_square_and_no_more():
    for shape, points in SHAPES.items():
        sides = [(min(axis), max(axis)) for axis in zip(*points, strict=True)]
        assert all(low >= -1e-9 and high <= 1 + 1e-9 for low, high in sides), shape
        assert any(high - low == pytest.approx(1, abs=0.06) for low, high in sides), shape
    turned = [(y, x) for x, y in SHAPES["bar"]]
    assert corners(turned) == corners(SHAPES["pillar"])
    assert all((x - 0.5) ** 2 + (y - 0.5) ** 2 == pytest.approx(0.25) for x, y in SHAPES["circle"])


def test_a_shape_keeps_a_twelfth_of_its_cell_free_and_has_its_emoji_in_the_middle_half():
    from chiasm.data.world.glyphs import Glyph, GlyphPicture

    emoji, other = one_word_emoji()[:2]
    pixels, others = (
        np.asarray(GlyphPicture([(3, Glyph("red", "square", one))], 2, 24).open()).astype(int)
        for one in (emoji, other)
    )
    rows, columns = np.nonzero((pixels != GROUND).any(-1))
    assert (rows.min(), rows.max()) == (columns.min(), columns.max())
    assert (rows.min(), rows.max()) in ((26, 45), (26, 46))  # a polygon holds its last corner
    rows, columns = np.nonzero((pixels != others).any(-1))
    assert min(rows.min(), columns.min()) >= 30
    assert max(rows.max(), columns.max()) < 42
    assert rows.max() - rows.min() >= 8


def test_the_key_of_an_image_tells_apart_what_is_seen():
    from chiasm.data.world.glyphs import Glyph, GlyphPicture

    emoji, other = one_word_emoji()[:2]
    red = Glyph("red", "square", emoji)
    pictures = [
        GlyphPicture([(0, red)], 2, 16),
        GlyphPicture([(1, red)], 2, 16),
        GlyphPicture([(0, Glyph("blue", "square", emoji))], 2, 16),
        GlyphPicture([(0, Glyph("red", "star", emoji))], 2, 16),
        GlyphPicture([(0, Glyph("red", "square", other))], 2, 16),
        GlyphPicture([(0, red)], 3, 16),
        GlyphPicture([(0, red)], 2, 17),
    ]
    assert len({picture.key for picture in pictures}) == len(pictures)
    assert GlyphPicture([(0, red)], 2, 16).key == pictures[0].key
    assert [tuple(picture.size) for picture in pictures[-2:]] == [(48, 48), (34, 34)]
