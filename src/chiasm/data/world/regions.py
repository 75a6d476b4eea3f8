"""Regions as prompts: the box, a point or a painted stroke of a thing stands in for its name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool
from PIL import Image

from chiasm.data.world.dice import Dice
from chiasm.data.world.phrases import Phrases
from chiasm.data.world.render import ScenePicture, masks, render
from chiasm.data.world.scene import Scene

KINDS = ("box", "point", "stroke")
RED = (230, 20, 40)
STROKE = 0.3  # of a thing's side: how wide a stroke is


@dataclass(frozen=True)
class RegionPrompt:
    """How a thing is pointed at. thing: its place in `Scene.things`. words: how questions name the region."""

    kind: str
    thing: int
    picture: ScenePicture
    words: str

    def ask(self, say: Phrases, *, mask: bool) -> str:
        """A question for its name, or an instruction to mark it."""
        kind = "mask_region" if mask else "region"
        return say.ask(f"{kind}_stroke" if self.kind == "stroke" else kind, cell=self.words)


def region_prompt(scene: Scene, canvas: int, thing: int, say: Phrases, dice: Dice) -> RegionPrompt:
    """One of the three kinds; boxes and points are in hundredths of the image's sides, rounded."""
    kind = dice.pick(KINDS)
    visible = masks(scene, canvas)[thing]
    if kind == "stroke":
        return RegionPrompt(kind, thing, StrokePicture(scene, canvas, thing, _inside(visible, dice)), "")
    if kind == "box":
        numbers: tuple[float, ...] = tuple(edge / canvas for edge in scene.box(scene.things[thing], canvas))
    else:
        row, column = _inside(visible, dice)
        numbers = ((column + 0.5) / canvas, (row + 0.5) / canvas)
    listed = ",".join(f"{number:.2f}" for number in numbers)
    return RegionPrompt(kind, thing, ScenePicture(scene, canvas), f"{say.region[kind]}[{listed}]")


class StrokePicture(ScenePicture):
    """A scene on a thing of which there is a stroke of red. at: row and column of its middle, in pixels."""

    def __init__(self, scene: Scene, canvas: int, thing: int, at: tuple[int, int]):
        super().__init__(scene, canvas)
        self.thing, self.at = thing, at

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        text = f"stroke {self.thing} {self.at} on {ScenePicture(self.scene, self.canvas).key}"
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def stroke(self) -> Bool[np.ndarray, "h w"]:
        """The pixels that are red: a disc, as far as it lies on the thing."""
        left, _, right, _ = self.scene.box(self.scene.things[self.thing], self.canvas)
        rows, columns = np.ogrid[: self.canvas, : self.canvas]
        near = np.hypot(rows - self.at[0], columns - self.at[1]) <= max(1.5, STROKE * (right - left) / 2)
        return near & masks(self.scene, self.canvas)[self.thing]

    def open(self) -> Image.Image:
        pixels = np.array(render(self.scene, self.canvas))
        pixels[self.stroke()] = RED
        return Image.fromarray(pixels)


def _inside(visible: Bool[np.ndarray, "h w"], dice: Dice) -> tuple[int, int]:
    """A pixel well within a mask: of those that are farther from its edge than half of all."""
    depth, rest = np.zeros(visible.shape, dtype=int), visible.copy()
    while rest.any():
        depth += rest
        inner = np.pad(rest, 1)
        rest = rest & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    rows, columns = np.nonzero(visible & (depth >= np.median(depth[visible])))
    chosen = dice.below(len(rows))
    return int(rows[chosen]), int(columns[chosen])
