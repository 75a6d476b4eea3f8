"""The data source `moving_world`: clips of emoji that move by a rule, with exact ground truth for every frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from PIL import Image
from pydantic import NonNegativeFloat, PositiveInt

from chiasm.data import Message, Sample, Source
from chiasm.data.clip import Clip
from chiasm.data.world.assets import Emoji, artwork, assets_version, emoji_set
from chiasm.data.world.composer import TINTS
from chiasm.data.world.dice import Dice
from chiasm.data.world.scene import Box
from chiasm.data.world.splits import Split, is_held_out
from chiasm.errors import DataError
from chiasm.parts.bounds import Seed
from chiasm.views import Size

VERSION = 1  # raised when the same options would give other clips
MOST_TOSSES = 10_000  # for things that may meet
HEADINGS = {
    "right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0),
    "down and right": (1, 1), "down and left": (1, -1), "up and right": (-1, 1), "up and left": (-1, -1),
}  # fmt: skip


@dataclass(frozen=True)
class Mover:
    """An emoji that goes straight on and turns back at the edges.

    side: of its square. top, left: of the square in the first frame. down, right: how far it moves from frame to
    frame. All in pixels.
    """

    emoji: Emoji
    side: int
    top: float
    left: float
    down: float
    right: float

    def box(self, time: int, canvas: int) -> Box:
        """Left, top, right, bottom in frame `time`."""
        limit = canvas - self.side
        top, left = (
            round(bounced(start + time * speed, limit))
            for start, speed in ((self.top, self.down), (self.left, self.right))
        )
        return left, top, left + self.side, top + self.side


class SceneClip(Clip):
    """Movers on a ground; what stands later in `movers` covers what stands before."""

    def __init__(self, movers: tuple[Mover, ...], tint: tuple[int, int, int], canvas: int, length: int):
        self.movers, self.tint, self.canvas, self.length = movers, tint, canvas, length
        self.size = Size(canvas, canvas)

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        movers = [(m.emoji.code, m.side, m.top, m.left, m.down, m.right) for m in self.movers]
        record = f"clip {movers} {self.tint} {self.canvas} {self.length} {assets_version()}"
        return blake2b(record.encode(), digest_size=16).hexdigest()

    def boxes(self) -> list[list[Box]]:
        """The box of every mover in every frame."""
        return [[mover.box(time, self.canvas) for mover in self.movers] for time in range(self.length)]

    def frames(self) -> list[Image.Image]:
        return [self._render(boxes) for boxes in self.boxes()]

    def open(self) -> Image.Image:
        return self._render([mover.box(0, self.canvas) for mover in self.movers])

    def _render(self, boxes: list[Box]) -> Image.Image:
        frame = Image.new("RGB", (self.canvas, self.canvas), self.tint)
        for mover, box in zip(self.movers, boxes, strict=True):
            image = artwork(mover.emoji, "plain", mover.side)
            frame.paste(image, box[:2], image)
        return frame


class MovingWorld(Source, name="moving_world"):
    """Emoji that move in straight lines over a ground and turn back at its edges.

    A sample asks for a clip in words that say how everything moves at first, and its answer is the clip. Its truth
    has the heading and, frame by frame, the box (left, top, right, bottom, in pixels) of every thing.

    Args:
        emoji: how many emoji clips are made of; the first ones look least alike.
        unseen: how many further emoji the split `emoji` is made of.
        canvas: height and width in pixels.
        frames: of a clip.
        objects: fewest and most things in a clip.
        sides: smallest and largest side of a thing, as shares of the canvas.
        speed: slowest and fastest movement along an axis, in shares of the canvas a frame.
        tints: how many colours the ground may have, 1 to 8.
        clips: number of clips.
        split: train, or what is held out: combination (pairs of emoji that never meet in training) or emoji.
        held_out: share of the pairs of emoji that never meet in training.
        seed: other clips for another seed.
    """

    def __init__(
        self,
        *,
        emoji: PositiveInt = 32,
        unseen: PositiveInt = 16,
        canvas: PositiveInt = 64,
        frames: PositiveInt = 8,
        objects: tuple[PositiveInt, PositiveInt] = (1, 2),
        sides: tuple[float, float] = (0.3, 0.45),
        speed: tuple[NonNegativeFloat, NonNegativeFloat] = (0.03, 0.08),
        tints: int = 8,
        clips: PositiveInt = 4000,
        split: Split = "train",
        held_out: float = 0.1,
        seed: Seed = 0,
    ):
        self.options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self.check_together(self.options)
        self.canvas, self.length, self.objects, self.sides, self.speed = canvas, frames, objects, sides, speed
        self.tints, self.clips, self.split, self.held_out, self.seed = tints, clips, split, held_out, seed
        self.emoji = emoji_set(emoji + unseen)[emoji:] if split == "emoji" else emoji_set(emoji)

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        _check(options)

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index: int) -> list[Sample]:
        if not 0 <= index < self.clips:
            raise IndexError(f"the moving world has clips 0 to {self.clips - 1}; clip {index} was asked for")
        clip, headings = self._clip(Dice("clip", self.seed, self.split, index))
        motions = [
            f"{mover.emoji.english} moves {heading}"
            for mover, heading in zip(clip.movers, headings, strict=True)
        ]
        truth = {
            "task": "clip",
            "split": self.split,
            "emoji": [mover.emoji.english for mover in clip.movers],
            "headings": headings,
            "boxes": clip.boxes(),
        }
        prompt = f"Film: {'; '.join(motions)}."
        messages = Message("user", (prompt,)), Message("assistant", (clip,))
        return [Sample(f"clip {index} of moving_world({self.split})", messages, truth)]

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        record = f"moving world {VERSION} {sorted(self.options.items())} {assets_version()}"
        return blake2b(record.encode(), digest_size=16).hexdigest()

    def _clip(self, dice: Dice) -> tuple[SceneClip, list[str]]:
        low, high = self.objects
        cast = self._cast(low + dice.below(high - low + 1), dice)
        headings = [dice.pick(list(HEADINGS)) for _ in cast]
        movers = tuple(self._mover(emoji, heading, dice) for emoji, heading in zip(cast, headings))
        return SceneClip(movers, TINTS[dice.below(self.tints)], self.canvas, self.length), headings

    def _mover(self, emoji: Emoji, heading: str, dice: Dice) -> Mover:
        side = max(1, round(dice.uniform(*self.sides) * self.canvas))
        top, left = (dice.uniform(0, self.canvas - side) for _ in range(2))
        down, right = (sign * dice.uniform(*self.speed) * self.canvas for sign in HEADINGS[heading])
        return Mover(emoji, side, top, left, down, right)

    def _cast(self, count: int, dice: Dice) -> list[Emoji]:
        """Different emoji: no held-out pair in training, at least one in `combination`."""
        for _ in range(MOST_TOSSES):
            cast = dice.sample(self.emoji, count)
            pairs = [(one, other) for i, one in enumerate(cast) for other in cast[:i]]
            held = any(is_held_out(one, other, self.held_out) for one, other in pairs)
            if self.split == "emoji" or held == (self.split == "combination"):
                return cast
        condition = "with a held-out pair" if self.split == "combination" else "without held-out pairs"
        raise DataError(
            f"moving_world: {count} of {len(self.emoji)} emoji {condition} are not to be found; take more"
        )


def bounced(place: float, limit: float) -> float:
    """Where between 0 and `limit` something stands that turns back at both ends."""
    if limit <= 0:
        return 0.0
    folded = place % (2 * limit)
    return min(folded, 2 * limit - folded)


def _check(options: Mapping[str, Any]) -> None:
    low, high = options["objects"]
    limits = {
        "objects": (low <= high, "two rising numbers"),
        "emoji": (options["emoji"] >= high + 1, f"{high + 1} or more, for {high} in a clip"),
        "unseen": (options["split"] != "emoji" or options["unseen"] >= high, f"{high} or more"),
        "sides": (0 < options["sides"][0] <= options["sides"][1] <= 1, "two rising shares of the canvas"),
        "speed": (options["speed"][0] <= options["speed"][1], "two rising shares of the canvas"),
        "tints": (1 <= options["tints"] <= len(TINTS), f"from 1 to {len(TINTS)}"),
        "held_out": (0 < options["held_out"] <= 0.5, "above 0 and at most 0.5"),
        "split": (
            options["split"] != "style" and (options["split"] != "combination" or low >= 2),
            "train, emoji, or with two objects or more combination",
        ),
    }
    for name, (holds, right) in limits.items():
        if not holds:
            raise DataError(f"moving_world: {name} is {options[name]!r}; it must be {right}")
