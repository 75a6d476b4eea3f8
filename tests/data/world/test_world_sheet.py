"""The contact sheet: everything has its place, nothing covers anything else, and a change of it is on purpose.

What is drawn where stands in `sheet.txt`, a line for each text, frame and picture. Where the sheet is meant to
change, look at it (`chiasm world --sheet sheet.png`) and write the lines anew:

    python tests/data/world/test_world_sheet.py
"""

from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from chiasm.data.world import World, sheet
from chiasm.data.world.sheet import SIDE, contact_sheet

LINES = Path(__file__).parent / "sheet.txt"
WORLDS = {
    "few": (World(scenes=3), 8),
    "many": (World(emoji=168, objects=(5, 9), split="style", seed=4), 5),
    "Chinese": (World(language="zh", emoji=30), 2),
}


class Pen:
    """Notes what is drawn, in a font in which every letter is half as wide as it is high."""

    def __init__(self):
        self.calls = []

    def textlength(self, text, font):
        return font * len(text) / 2

    def text(self, place, text, colour, font):
        self.calls.append(("text", *place, text, colour, font))

    def rectangle(self, box, outline=None, fill=None, width=None):
        self.calls.append(("rectangle", *box, outline, fill, width))

    def polygon(self, corners, fill):
        self.calls.append(("polygon", *corners, fill))

    def paste(self, picture, place, mask=None):
        self.calls.append(("picture", *place, *picture.size))


def drawn(world, count, patch, font=None):
    """All that is drawn on the sheet of a world, and the sheet's size."""
    pen = Pen()
    patch.setattr(ImageDraw, "Draw", lambda image: pen)
    patch.setattr(sheet.ImageFont, "load_default", lambda size: size)
    patch.setattr(sheet.ImageFont, "truetype", lambda file, size: size)
    patch.setattr(sheet, "chinese_font", lambda: font)
    patch.setattr(Image.Image, "paste", lambda self, picture, place, mask=None: pen.paste(picture, place))
    patch.setattr(sheet, "render", lambda scene, side: Image.new("RGB", (side, side)))
    patch.setattr(sheet, "artwork", lambda emoji, style, side: Image.new("RGB", (side, side)))
    return pen.calls, contact_sheet(world, count).size


@pytest.mark.parametrize("name", WORLDS)
def test_the_sheet_is_laid_out_as_it_was_looked_at(name, monkeypatch):
    assert (
        lines_of(name, monkeypatch)
        == LINES.read_text(encoding="utf-8").split("== ")[1:][list(WORLDS).index(name)]
    )


@pytest.mark.parametrize("name", WORLDS)
def test_pictures_lie_on_the_sheet_and_apart(name, monkeypatch):
    calls, (width, height) = drawn(*WORLDS[name], monkeypatch)
    boxes = [(x, y, x + w, y + h) for kind, x, y, w, h in (call for call in calls if call[0] == "picture")]
    assert all(
        0 <= left < right <= width and 0 <= top < bottom <= height for left, top, right, bottom in boxes
    )
    for one, other in combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_questions_and_captions_stay_in_the_width_of_their_card(monkeypatch):
    calls, _ = drawn(*WORLDS["many"], monkeypatch)
    lefts = [x for kind, x, y, w, h in (c for c in calls if c[0] == "picture") if w == SIDE]
    for _, x, _, text, _, size in (call for call in calls if call[0] == "text" and call[5] == 13):
        left = max(left for left in lefts if left <= x)
        assert x + size * len(text.rstrip()) / 2 <= left + SIDE + 8


def test_chinese_is_written_where_there_is_a_font_for_it(monkeypatch):
    without, _ = drawn(*WORLDS["Chinese"], monkeypatch)
    texts = [call[3] for call in without if call[0] == "text"]
    assert any("No font with Chinese letters" in text for text in texts)
    assert all(ord(letter) < 0x2E80 for text in texts for letter in text)
    with_font, _ = drawn(*WORLDS["Chinese"], monkeypatch, "font.ttc")
    texts = [call[3] for call in with_font if call[0] == "text"]
    assert not any("No font" in text for text in texts)
    assert any(ord(letter) >= 0x2E80 for text in texts for letter in text)


def lines_of(name, patch):
    calls, size = drawn(*WORLDS[name], patch)
    lines = [f"{name}: {size[0]} x {size[1]}", *(" ".join(map(str, call)) for call in calls)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        LINES.write_text("".join(f"== {lines_of(name, patch)}" for name in WORLDS), encoding="utf-8")
