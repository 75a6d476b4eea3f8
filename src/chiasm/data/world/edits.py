"""Changes of a scene: a thing removed, replaced or moved, in words (`edit`) or by example (`analogy`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chiasm.data.world.composer import Composer, Draft
from chiasm.data.world.dice import Dice
from chiasm.data.world.phrases import Phrases, phrases
from chiasm.data.world.scene import Scene


@dataclass(frozen=True)
class SceneEdit:
    """kind: remove, replace or move. text: the instruction. plain: the same in its plainest words."""

    kind: str
    text: str
    plain: str
    before: Scene
    after: Scene


@dataclass(frozen=True)
class Analogy:
    """`example` shows a change of one emoji, `before` is another scene with it, `after` its answer."""

    kind: str
    example: tuple[Scene, Scene]
    before: Scene
    after: Scene


def edit(draft: Draft, say: Phrases, dice: Dice) -> SceneEdit:
    """One change of the scene, of a thing that occurs once. Every kind that the scene allows is as likely."""
    before = draft.scene
    thing = dice.pick(before.single)
    others = [other for other in before.things if other is not thing]
    name = say.name(thing.emoji)
    kind = dice.pick(_kinds(draft))

    def worded(after: Scene, **names: str) -> SceneEdit:
        text, plain = (each.ask(kind, one=name, **names) for each in (say, phrases(say.language)))
        return SceneEdit(kind, text, plain, before, after)

    if kind == "remove":
        return worded(before.holding(others))
    if kind == "replace":
        other = dice.pick(draft.absent)
        return worded(before.holding([*others, replace(thing, emoji=other)]), other=say.name(other))
    cell = dice.pick(before.free)
    return worded(before.holding([*others, replace(thing, cell=cell)]), cell=say.cell(cell, before.grid))


def analogy(draft: Draft, composer: Composer, dice: Dice) -> Analogy:
    """The same change of the same emoji in two scenes: the draft's is the question, another the example.

    The second scene has the same emoji in other cells; a move ends in the same cell in both.
    """
    before = draft.scene
    thing = dice.pick(before.single)
    shuffled = dice.sample(range(before.cells), len(before.things))
    members = [composer.place(t.emoji, cell, dice) for t, cell in zip(before.things, shuffled)]
    twin = members[before.things.index(thing)]
    example = before.holding(members)
    common = sorted(set(before.free) & set(example.free))
    kinds = [kind for kind in _kinds(draft) if kind != "move" or common]
    kind = dice.pick(kinds)
    other = dice.pick(draft.absent)
    cell = dice.pick(common) if common else 0

    def change(scene: Scene, changed) -> Scene:
        others = [other for other in scene.things if other is not changed]
        if kind == "remove":
            return scene.holding(others)
        new = replace(changed, emoji=other) if kind == "replace" else replace(changed, cell=cell)
        return scene.holding([*others, new])

    return Analogy(kind, (example, change(example, twin)), before, change(before, thing))


def _kinds(draft: Draft) -> list[str]:
    kinds = ["replace"]
    if len(draft.scene.things) > 1:
        kinds.append("remove")
    if draft.scene.free:
        kinds.append("move")
    return kinds
