"""The checker is a yardstick: the matches it gives stay as they are, so that scores of different days compare.

Where they are meant to change, measure again whatever is compared, and write the record anew:

    python tests/data/world/test_world_readings.py
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFilter

from chiasm.data.world import Checker, World, emoji_set, render
from chiasm.data.world.assets import artwork
from chiasm.data.world.checker import BLURS, CELL, SIDES, _ground
from chiasm.data.world.composer import SIDES as DRAWN_SIDES

RECORD = Path(__file__).parent / "readings.json"
EMOJI = emoji_set(10)


def noisy(picture):
    noise = np.random.default_rng(0).normal(0, 40, (picture.height, picture.width, 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


DAMAGES = {
    "clean": lambda picture: picture,
    "soft": lambda picture: picture.filter(ImageFilter.GaussianBlur(3)),
    "softer": lambda picture: picture.filter(ImageFilter.GaussianBlur(6)),
    "shifted": lambda picture: ImageChops.offset(picture, 9, -6),
    "noisy": noisy,
    "pale": lambda picture: Image.blend(
        Image.new("RGB", picture.size, picture.getpixel((0, 0))), picture, 0.25
    ),
    "small": lambda picture: picture.resize((40, 40), Image.Resampling.BOX),
}


@cache
def checker(styles=("plain",)):
    return Checker(EMOJI, styles=styles)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_matches_of_the_checker_stay_as_they_are(damage):
    """Of all cells, the empty ones too. The tolerance is for other versions of the imaging library."""
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))[damage]
    assert np.abs(np.array(matches(damage)) - recorded).max() < 0.003


def test_every_size_that_the_world_draws_has_a_template_of_half_a_pixel_more_or_less():
    for side in np.linspace(*DRAWN_SIDES, 100) * CELL:
        assert min(abs(side - of_template) for of_template in SIDES) <= 0.5


def test_a_match_with_a_softer_template_counts_less():
    penalties = [BLURS[blur] for blur in sorted(BLURS)]
    assert penalties == sorted(set(penalties))
    assert penalties[0] == 0


def test_things_are_read_in_their_cells_in_a_grid_that_is_no_square():
    picture = Image.new("RGB", (4 * 32, 2 * 32), "#a0d0f0")
    places = {0: EMOJI[0], 3: EMOJI[1], 5: EMOJI[2]}
    for cell, emoji in places.items():
        row, column = divmod(cell, 4)
        drawn = artwork(emoji, "plain", 26)
        picture.paste(drawn, (column * 32 + 3, row * 32 + 3), drawn)
    reading = Checker(EMOJI, grid=(2, 4)).read(picture)
    assert reading.cells == tuple(places.get(cell) for cell in range(8))
    assert reading.recognised == 3
    assert len(reading.scores) == 8


def test_a_cell_holds_something_from_the_threshold_on():
    picture = render(World(emoji=10).scene(0), 96)
    scores = checker().read(picture).scores
    for score in scores:
        found = Checker(EMOJI, threshold=score).read(picture).cells
        assert [emoji is not None for emoji in found] == [other >= score for other in scores]


def test_several_styles_are_told_by_the_emoji_alone():
    scenes = [World(emoji=10, styles=(style,), unseen_styles=()).scene(0) for style in ("plain", "grey")]
    for scene in scenes:
        cells = checker(("plain", "grey")).read(render(scene, 96)).cells
        assert cells == tuple({thing.cell: thing.emoji for thing in scene.things}.get(i) for i in range(9))


def test_the_ground_is_the_commonest_colour_and_its_share_of_the_picture():
    colours = np.array(
        [[0.10, 0.60, 0.30], [0.17, 0.66, 0.23], [0.19, 0.60, 0.30], [0.9, 0.1, 0.1], [1.0, 1.0, 0.0]]
    )
    counts = [30, 10, 20, 25, 15]
    pixels = np.repeat(colours, counts, axis=0).astype(np.float32).T.reshape(3, 10, 10)
    ground, share = _ground(pixels)
    assert ground == pytest.approx(colours[0])  # the third lies further off than 0.08
    assert share == pytest.approx(0.4)
    assert _ground(np.ones((3, 4, 4), dtype=np.float32))[1] == 1


def test_an_array_is_read_from_0_to_1_and_rounded_like_a_picture():
    picture = render(World(emoji=10).scene(1), 96)
    array = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255
    expected = checker().read(picture).scores
    assert checker().read(array + 0.4 / 255 * np.sign(array - 0.5)).scores == expected
    beyond = np.where(array == 1, 1.3, np.where(array == 0, -0.3, array))
    assert checker().read(beyond).scores == expected


def matches(damage):
    scenes = [World(emoji=10, objects=(3, 6)).scene(index) for index in range(3)]
    return [[round(m, 4) for m in checker().read(DAMAGES[damage](render(s, 144))).scores] for s in scenes]


if __name__ == "__main__":
    RECORD.write_text(json.dumps({damage: matches(damage) for damage in DAMAGES}, indent=1) + "\n")
