"""Instructions that a tool carries out, answered by its call: how VITRON draws, marks and changes images."""

from __future__ import annotations

from dataclasses import dataclass

from chiasm.data.calls import MODULES, Call
from chiasm.data.world.composer import Draft
from chiasm.data.world.dice import Dice
from chiasm.data.world.phrases import Phrases

TOOLS = {module.name: module for module in MODULES}


@dataclass(frozen=True)
class SceneCall:
    """kind: generation, segmentation or editing. text: the instruction. shows: it is about the scene's image."""

    kind: str
    text: str
    call: Call

    @property
    def shows(self) -> bool:
        return self.call.region is not None


def scene_call(draft: Draft, canvas: int, say: Phrases, dice: Dice) -> SceneCall:
    """An instruction of one of the three kinds; regions are boxes of things on a canvas of so many pixels."""
    scene, kind = draft.scene, dice.pick(("generation", "segmentation", "editing"))
    if kind == "generation":
        caption = say.caption(scene)
        call = Call(TOOLS["image generation"], {"generation": caption})
        return SceneCall(kind, say.ask("draw", caption=caption), call)
    thing = dice.pick(scene.single)
    name, box = say.name(thing.emoji), scene.box(thing, canvas)
    if kind == "segmentation":
        call = Call(TOOLS["image segmentation"], {"segmentation": name}, box)
        return SceneCall(kind, say.ask("segment", one=name), call)
    other = dice.pick(draft.absent)
    call = Call(TOOLS["image editing"], {"generation": say.label(other)}, box)
    return SceneCall(kind, say.ask("replace", one=name, other=say.name(other)), call)
