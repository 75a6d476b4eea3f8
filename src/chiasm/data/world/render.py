"""Scenes as pictures, boxes and masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import PIL
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageFont

from chiasm.data.sample import Masks, Picture
from chiasm.data.world.assets import artwork, assets_version
from chiasm.data.world.scene import Scene
from chiasm.views import Size


def render(scene: Scene, canvas: int) -> Image.Image:
    """The scene as RGB, `canvas` x `canvas` pixels."""
    image = Image.new("RGB", (canvas, canvas), scene.tint)
    for thing, box in zip(scene.things, scene.boxes(canvas)):
        styled = artwork(thing.emoji, scene.style, box[2] - box[0])
        image.paste(styled, box[:2], styled)
    return image


def masks(scene: Scene, canvas: int) -> Bool[np.ndarray, "things canvas canvas"]:
    """The visible pixels of every thing: those that it covers by half or more."""
    visible = np.zeros((len(scene.things), canvas, canvas), dtype=bool)
    for mask, thing, (left, top, right, bottom) in zip(visible, scene.things, scene.boxes(canvas)):
        alpha = artwork(thing.emoji, scene.style, right - left).getchannel("A")
        mask[top:bottom, left:right] = np.asarray(alpha) >= 128
    return visible


class ScenePicture(Picture):
    """A scene that is drawn when it is opened. canvas: its height and width in pixels."""

    def __init__(self, scene: Scene, canvas: int):
        self.scene = scene
        self.canvas = canvas
        self.size = Size(canvas, canvas)

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        return _hash(f"scene {self.scene.description()} {self.canvas} {assets_version()}")

    def open(self) -> Image.Image:
        return render(self.scene, self.canvas)

    def __repr__(self) -> str:
        things = ", ".join(f"{thing.emoji.english} {thing.cell}" for thing in self.scene.things)
        return f"ScenePicture({things}; {self.canvas} px, {self.scene.style})"


class SceneMasks(Masks):
    """Masks of some things of a scene. things: their places in `Scene.things`."""

    def __init__(self, scene: Scene, canvas: int, things: tuple[int, ...]):
        self.scene, self.canvas, self.things, self.count = scene, canvas, things, len(things)

    def open(self) -> Bool[np.ndarray, "m h w"]:
        return masks(self.scene, self.canvas)[list(self.things)]


@dataclass(frozen=True)
class SceneChange:
    """Two scenes, the second of which comes of the first by an edit. canvas: of both images, in pixels."""

    before: Scene
    after: Scene
    canvas: int

    @property
    def source(self) -> ScenePicture:
        """The image that is changed, as it is written."""
        return ScenePicture(self.before, self.canvas)

    def mask(self) -> Bool[np.ndarray, "h w"]:
        """The pixels in which the two differ."""
        one, other = (np.asarray(render(scene, self.canvas)) for scene in (self.before, self.after))
        return (one != other).any(-1)


class TextPicture(Picture):
    """Words to read, a line each, in PIL's built-in font (Latin letters only) on a tinted ground."""

    def __init__(self, lines: tuple[str, ...], canvas: int, tint: tuple[int, int, int]):
        self.lines = lines
        self.canvas = canvas
        self.tint = tint
        self.size = Size(canvas, canvas)

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        return _hash(f"text {self.lines} {self.canvas} {self.tint} pillow {PIL.__version__}")

    def open(self) -> Image.Image:
        image = Image.new("RGB", (self.canvas, self.canvas), self.tint)
        draw = ImageDraw.Draw(image)
        # As large as the longest line allows: 0.9 of the width, at most a fifth of the height.
        width = max(draw.textlength(text, ImageFont.load_default(100)) for text in self.lines)
        font = ImageFont.load_default(min(self.canvas * 0.2, 90 * self.canvas / width))
        draw.multiline_text(
            (self.canvas / 2, self.canvas / 2),
            "\n".join(self.lines),
            (30, 30, 40),
            font,
            "mm",
            align="center",
        )
        return image


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
