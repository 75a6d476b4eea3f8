"""A contact sheet: scenes of the world, questions about them, and what is held out."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from chiasm.data.fonts import chinese_font
from chiasm.data.world.assets import artwork
from chiasm.data.world.composer import TINTS
from chiasm.data.world.dice import Dice
from chiasm.data.world.edits import edit
from chiasm.data.world.phrases import phrases
from chiasm.data.world.questions import QUESTIONS
from chiasm.data.world.render import render
from chiasm.data.world.scene import Scene
from chiasm.data.world.source import World
from chiasm.data.world.styles import STYLES

SIDE = 250  # pixels of one scene on the sheet
GAP = 26
COLUMNS = 4
WIDTH = COLUMNS * (SIDE + GAP) + GAP
CARD = SIDE + 158  # a scene with its caption and questions
INK, PALE, BLUE, GREEN = (32, 34, 44), (120, 124, 138), (28, 100, 200), (20, 120, 70)


def contact_sheet(world: World, n: int = 8) -> Image.Image:
    """The first `n` scenes with boxes, captions and questions; an edit; every style; the emoji. RGB.

    Chinese is written where the system has a font for it; else the sheet has a note and is in English.
    """
    return _Sheet(world, n).draw()


class _Sheet:
    def __init__(self, world: World, n: int):
        self.world, self.n = world, min(n, len(world))
        chinese = world.say.language == "zh"
        self.font_file = chinese_font() if chinese else None
        self.missing_font = chinese and self.font_file is None
        self.say = phrases("en") if self.missing_font else world.say
        self.sheet = Image.new("RGB", (WIDTH, self._height()), (250, 250, 252))
        self.pen = ImageDraw.Draw(self.sheet)

    def draw(self) -> Image.Image:
        top = self._head()
        for place in range(self.n):
            row, column = divmod(place, COLUMNS)
            self._card(place, GAP + column * (SIDE + GAP), top + row * (CARD + GAP))
        top += -(-self.n // COLUMNS) * (CARD + GAP)
        top = self._edits(top)
        top = self._styles(top)
        self._emoji(top)
        return self.sheet

    def _height(self) -> int:
        cards = -(-self.n // COLUMNS) * (CARD + GAP)
        emoji = -(-len(self.world.emoji[:144]) // 24) * 46
        return 114 + cards + (SIDE + 98) + (150 + 84) + (emoji + 60)

    def _head(self) -> int:
        world = self.world
        self._text((GAP, 22), "Chiasm's built-in world", 30)
        facts = (
            f"split {world.split} · {len(world):,} scenes · {len(world.emoji)} emoji · "
            f"{world.grid[0]} x {world.grid[1]} cells · read at {world.canvas} px, "
            f"written at {world.drawn_canvas} px · styles {', '.join(world.styles)} · seed {world.seed}"
        )
        self._text((GAP, 62), facts, 15, PALE)
        if self.missing_font:
            self._text(
                (GAP, 82),
                "No font with Chinese letters was found here: worded in English.",
                15,
                (190, 60, 40),
            )
        return 120

    def _card(self, index: int, left: int, top: int) -> None:
        scene = self.world.scene(index)
        self._scene_image(scene, left, top)
        for thing, box in zip(scene.things, scene.boxes(SIDE)):
            x, y = left + box[0], top + box[1]
            self.pen.rectangle((x, y, left + box[2], top + box[3]), outline=BLUE, width=1)
            name = self.say.name(thing.emoji)
            width = self.pen.textlength(name, self._font(11))
            self.pen.rectangle((x, y - 13, x + width + 6, y + 1), fill=BLUE)
            self._text((x + 3, y - 13), name, 11, (255, 255, 255))
        y = top + SIDE + 6
        for line in self._wrapped(self.say.caption(scene), SIDE, 13)[:4]:
            self._text((left, y), line, 13)
            y += 17
        y += 5
        for question, answer in self._questions(index)[: (top + CARD - y) // 17]:
            self._text((left, y), question, 13, PALE)
            x = left + round(self.pen.textlength(question + "  ", self._font(13)))
            self._text((x, y), answer, 13, GREEN)
            y += 17

    def _questions(self, index: int) -> list[tuple[str, str]]:
        """Questions that fit on a line, the types taking turns from card to card."""
        draft = self.world.composer.draft(index)
        types = list(QUESTIONS)
        questions = []
        for turn in range(len(types)):
            task = types[(index * 3 + turn) % len(types)]
            dice = Dice(task, self.world.seed, self.world.split, index)
            questions += [(q.text, q.answer) for q in QUESTIONS[task](draft, self.say, dice, 1)]
        font = self._font(13)
        return [pair for pair in questions if self.pen.textlength("  ".join(pair), font) <= SIDE + 8]

    def _edits(self, top: int) -> int:
        self._text((GAP, top), "Edits: read the first, draw the second", 18)
        top += 32
        for pair in range(2):
            draft = self.world.composer.draft(pair)
            example = edit(draft, self.say, Dice("edit", self.world.seed, pair))
            left = GAP + pair * 2 * (SIDE + GAP)
            self._scene_image(example.before, left, top)
            self._scene_image(example.after, left + SIDE + GAP, top)
            y = top + SIDE // 2
            self.pen.polygon(
                [(left + SIDE + 6, y - 8), (left + SIDE + 6, y + 8), (left + SIDE + 20, y)], fill=PALE
            )
            self._text((left, top + SIDE + 8), example.text, 15)
        return top + SIDE + 52

    def _styles(self, top: int) -> int:
        self._text((GAP, top), "Drawing styles (a split of its own)", 18)
        top += 32
        step = (WIDTH - GAP) // len(STYLES)
        for place, style in enumerate(STYLES):
            scene = Scene(self.world.grid, self.world.scene(0).things, TINTS[place % len(TINTS)], style)
            self._scene_image(scene, GAP + place * step, top, 150)
            held = "  (here)" if style in self.world.styles else ""
            self._text((GAP + place * step, top + 155), style + held, 14, INK if held else PALE)
        return top + 150 + 46

    def _emoji(self, top: int) -> None:
        first = self.world.emoji[:144]
        of = f", the first {len(first)}" if len(first) < len(self.world.emoji) else ""
        self._text((GAP, top), f"The {len(self.world.emoji)} emoji{of}", 18)
        step = (WIDTH - 2 * GAP) / 24
        for place, emoji in enumerate(first):
            row, column = divmod(place, 24)
            image = artwork(emoji, "plain", 34)
            self.sheet.paste(image, (int(GAP + column * step), top + 34 + row * 46), image)

    def _scene_image(self, scene: Scene, left: int, top: int, side: int = SIDE) -> None:
        self.sheet.paste(render(scene, side), (left, top))

    def _text(self, place, text: str, size: int, colour=INK) -> None:
        self.pen.text(place, text, colour, self._font(size))

    def _font(self, size: int):
        return ImageFont.truetype(self.font_file, size) if self.font_file else ImageFont.load_default(size)

    def _wrapped(self, text: str, width: int, size: int) -> list[str]:
        """The text in lines of at most `width` pixels; Chinese may break anywhere."""
        lines = [""]
        words = list(text) if self.say.language == "zh" else [word + " " for word in text.split()]
        for word in words:
            if self.pen.textlength((lines[-1] + word).rstrip(), self._font(size)) > width:
                lines.append("")
            lines[-1] += word
        return lines
