"""Boxes, masks, words and drawing styles, checked by hand on pictures of a few pixels."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from chiasm.data.world import Scene, TextPicture, Thing, find_emoji, masks, render
from chiasm.data.world.assets import artwork
from chiasm.data.world.render import ScenePicture
from chiasm.data.world.styles import INK, STYLES

DOG, CAT = find_emoji("dog"), find_emoji("cat")


def test_a_box_lies_in_its_cell_where_the_shares_of_the_free_room_say():
    scene = Scene((2, 4), ())  # cells of 20 x 40 pixels on a canvas of 80
    assert scene.cells == 8
    assert [scene.place(cell) for cell in (0, 3, 4, 7)] == [(0, 0), (0, 3), (1, 0), (1, 3)]
    assert scene.box(Thing(DOG, 0, side=0.5, across=0.0, down=0.0), 80) == (0, 0, 10, 10)
    assert scene.box(Thing(DOG, 0, side=0.5, across=1.0, down=1.0), 80) == (10, 30, 20, 40)
    assert scene.box(Thing(DOG, 6, side=0.5, across=0.5, down=0.5), 80) == (45, 55, 55, 65)
    assert scene.box(Thing(DOG, 7), 80) == (62, 52, 78, 68)
    tall = Scene((4, 2), ())
    assert tall.box(Thing(DOG, 3, side=0.5, across=1.0, down=0.0), 80) == (70, 20, 80, 30)
    assert Scene((3, 3), ()).box(Thing(DOG, 0, side=0.01), 3) == (0, 0, 1, 1)  # never nothing


def test_a_scene_knows_what_is_single_and_what_is_free():
    scene = Scene((2, 2), (Thing(DOG, 0), Thing(DOG, 1), Thing(CAT, 3)))
    assert scene.counts == {DOG: 2, CAT: 1}
    assert scene.single == (scene.things[2],)
    assert scene.free == [2]
    assert (scene.tint, scene.style) == ((255, 255, 255), "plain")
    moved = scene.holding([Thing(CAT, 3), Thing(DOG, 1)])
    assert [(thing.emoji, thing.cell) for thing in moved.things] == [(DOG, 1), (CAT, 3)]
    assert (moved.grid, moved.tint, moved.style) == (scene.grid, scene.tint, scene.style)


def test_a_calmed_scene_has_the_share_of_its_variation_that_is_asked_for():
    scene = Scene((1, 1), (Thing(DOG, 0, side=0.9, across=0.1, down=0.7),))
    for jitter, expected in ((1, (0.9, 0.1, 0.7)), (0, (0.8, 0.5, 0.5)), (0.5, (0.85, 0.3, 0.6))):
        (thing,) = scene.calmed(jitter).things
        assert (thing.side, thing.across, thing.down) == pytest.approx(expected)


def test_the_description_tells_apart_whatever_changes_a_pixel():
    thing = Thing(DOG, 0, side=0.81234, across=0.51234, down=0.41234)
    scenes = [
        Scene((1, 2), (thing,)), Scene((2, 1), (thing,)), Scene((1, 2), (thing,), tint=(255, 255, 254)),
        Scene((1, 2), (thing,), style="grey"), Scene((1, 2), ()), Scene((1, 2), (Thing(CAT, 0, 0.81234),)),
        *(
            Scene((1, 2), (Thing(DOG, 0, *(values + change)),))
            for values in [np.array([0.81234, 0.51234, 0.41234])]
            for change in 1e-5 * np.eye(3)
        ),
    ]  # fmt: skip
    assert len({scene.description() for scene in scenes}) == len(scenes)
    assert len({ScenePicture(scene, canvas).key for scene in scenes for canvas in (32, 64)}) == 2 * len(
        scenes
    )
    hardly = Scene((1, 2), (Thing(DOG, 0, 0.8123401, 0.5123401, 0.4123401),))
    assert hardly.description() == scenes[0].description()  # less than any pixel


def test_a_picture_of_a_scene_says_what_it_shows():
    picture = ScenePicture(Scene((2, 2), (Thing(DOG, 0), Thing(CAT, 3)), style="grey"), 64)
    assert repr(picture) == "ScenePicture(dog 0, cat 3; 64 px, grey)"
    assert picture.open().size == tuple(picture.size) == (64, 64)


def test_a_thing_is_pasted_into_its_box_and_its_mask_is_what_it_covers_by_half():
    scene = Scene((1, 2), (Thing(DOG, 0), Thing(CAT, 1, side=1.0)), tint=(9, 99, 199))
    picture, seen = np.asarray(render(scene, 64)), masks(scene, 64)
    assert seen.shape == (2, 64, 64)
    for thing, mask, (left, top, right, bottom) in zip(scene.things, seen, scene.boxes(64), strict=True):
        own = np.asarray(artwork(thing.emoji, "plain", right - left)).astype(int)
        alpha = own[..., 3:] / 255
        expected = own[..., :3] * alpha + np.array(scene.tint) * (1 - alpha)
        assert np.abs(picture[top:bottom, left:right] - expected).max() <= 1
        assert (mask[top:bottom, left:right] == (own[..., 3] >= 128)).all()
        assert mask.sum() == mask[top:bottom, left:right].sum() > 50
    assert (own[..., 3] == 128).any() or ((own[..., 3] > 100) & (own[..., 3] < 156)).any()


def test_words_are_as_large_as_the_longest_line_allows(monkeypatch):
    """0.9 of the width, at most a fifth of the height: here every letter is half as wide as it is high."""
    calls = []

    class Pen:
        def textlength(self, text, font):
            return font * len(text) / 2

        def multiline_text(self, *arguments, align):
            calls.append((*arguments, align))

    monkeypatch.setattr(ImageDraw, "Draw", lambda image: Pen())
    monkeypatch.setattr(ImageFont, "load_default", lambda size: size)
    tint = (200, 210, 220)
    assert TextPicture(("potato", "pineapples"), 200, tint).open().getpixel((0, 0)) == tint
    TextPicture(("ox",), 200, tint).open()
    assert calls == [
        ((100, 100), "potato\npineapples", (30, 30, 40), pytest.approx(36), "mm", "center"),  # 10 x 18 = 180
        ((100, 100), "ox", (30, 30, 40), pytest.approx(40), "mm", "center"),
    ]


def test_words_have_a_key_by_all_that_is_seen_of_them():
    tint, other = (200, 210, 220), (200, 210, 221)
    pictures = [TextPicture(("a", "b"), 64, tint), TextPicture(("a b",), 64, tint),
                TextPicture(("a", "b"), 65, tint), TextPicture(("a", "b"), 64, other)]  # fmt: skip
    assert len({picture.key for picture in pictures}) == 4
    assert pictures[0].key == TextPicture(("a", "b"), 64, tint).key
    assert tuple(pictures[2].size) == (65, 65) == pictures[2].open().size


def test_flat_has_four_levels_a_channel_and_the_same_outline():
    original = artwork(DOG, "plain", 72)
    flat = np.asarray(STYLES["flat"](original))
    assert {int(level) for level in np.unique(flat[..., :3])} == {0, 64, 128, 192}
    assert (flat[..., 3] == np.asarray(original)[..., 3]).all()
    speck = np.zeros((9, 9, 4), dtype=np.uint8)
    speck[...] = 255
    speck[4, 4:6, :3] = 0  # of two pixels: smoothed away
    speck[:, :2, :3] = 0  # a stroke along the edge stays
    smoothed = np.asarray(STYLES["flat"](Image.fromarray(speck)))[..., 0]
    assert (smoothed[:, 3:] == 192).all()
    assert (smoothed[:, 0] == 0).all()


def test_grey_keeps_brightness_and_outline():
    original = artwork(CAT, "plain", 72)
    grey = np.asarray(STYLES["grey"](original))
    assert (grey[..., :3] == np.asarray(original.convert("L"))[..., None]).all()
    assert (grey[..., 3] == np.asarray(original)[..., 3]).all()


def test_mirror_exchanges_left_and_right():
    original = artwork(CAT, "plain", 72)
    assert (np.asarray(STYLES["mirror"](original)) == np.asarray(original)[:, ::-1]).all()


def test_a_mosaic_has_twelve_by_twelve_even_squares():
    original = artwork(CAT, "plain", 72)
    squares = np.asarray(STYLES["mosaic"](original)).reshape(12, 6, 12, 6, 4)
    assert (squares == squares[:, :1, :, :1]).all()
    means = np.asarray(original)[..., 3].reshape(12, 6, 12, 6).mean((1, 3))
    assert np.abs(squares[:, 0, :, 0, 3] - means).max() <= 1


def test_lines_are_ink_around_what_is_seen_and_white_within():
    """A square of three pixels: its outline is a pixel to either side, and nothing else is drawn."""
    square = np.zeros((11, 11, 4), dtype=np.uint8)
    square[4:7, 4:7] = (255, 0, 0, 255)
    line = np.asarray(STYLES["line"](Image.fromarray(square)))
    drawn = np.zeros((11, 11), dtype=bool)
    drawn[3:8, 3:8] = True
    assert (line[..., 3] == 255 * drawn).all()
    drawn[5, 5] = False
    assert (line[drawn, :3] == INK).all()
    assert (line[~drawn, :3] == 255).all()
    assert INK == (40, 40, 46)


def test_lines_are_drawn_between_colours_as_dark_as_these_differ_threefold():
    picture = np.full((12, 12, 4), 255, dtype=np.uint8)
    picture[:, 6:, 0] = 215
    line = np.asarray(STYLES["line"](Image.fromarray(picture))).astype(int)
    share = 3 * 40 / 255
    expected = [round(255 + share * (ink - 255)) for ink in INK]
    assert np.abs(line[2:-2, 5:7, :3] - expected).max() <= 1
    assert (line[2:-2, 2:4, :3] == 255).all()
    edge = np.ones((12, 12), dtype=bool)
    edge[1:-1, 1:-1] = False
    assert (line[edge, :3] == INK).all()  # where the picture itself ends
